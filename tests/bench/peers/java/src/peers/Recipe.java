package peers;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** The feature row of a payment, by features.toml; docs/model-package.md says what the columns are. */
final class Recipe {
    /** Puts the floats of one column; `gap` is in ms, negative for a card's first payment. */
    private interface Column {
        void put(FloatBuffer row, JsonNode event, long gap);
    }

    final int width;
    private final List<Column> columns = new ArrayList<>();

    Recipe(JsonNode recipe) {
        int floats = 0;
        for (JsonNode entry : recipe.get("column")) {
            columns.add(column(entry));
            floats += entry.get("kind").asText().equals("category") ? entry.get("vocabulary").size() + (unknown(entry) ? 1 : 0) : 1;
        }
        width = floats;
    }

    void put(FloatBuffer row, JsonNode event, long gap) {
        row.clear();
        for (Column column : columns) {
            column.put(row, event, gap);
        }
    }

    private static Column column(JsonNode entry) {
        String scale = entry.path("scale").asText();
        double mean = entry.path("mean").asDouble(0), std = entry.path("std").asDouble(1);
        switch (entry.get("kind").asText()) {
            case "gap": {
                double unit = Map.of("s", 1e3, "m", 6e4, "h", 3.6e6, "d", 8.64e7).get(entry.get("unit").asText());
                double first = entry.path("first").asDouble(0), floor = entry.path("floor").asDouble(0);
                double longest = entry.path("longest").asDouble(Double.POSITIVE_INFINITY);
                return (row, event, ms) -> {
                    double gap = Math.min(ms / unit, longest);
                    row.put((float) (ms < 0 ? first : switch (scale) {
                        case "log1p" -> Math.log1p(gap);
                        case "log_standard" -> (Math.log(Math.max(gap, floor)) - mean) / std;
                        default -> gap;
                    }));
                };
            }
            case "is_first":
                return (row, event, gap) -> row.put(gap < 0 ? 1f : 0f);
            case "numeric": {
                if (entry.path("missing_flag").asBoolean()) {
                    break;
                }
                String field = entry.get("field").asText();
                JsonNode clip = entry.path("clip");
                double low = clip.path(0).asDouble(Double.NEGATIVE_INFINITY), high = clip.path(1).asDouble(Double.POSITIVE_INFINITY);
                double missing = entry.path("missing").asDouble(0);
                return (row, event, gap) -> {
                    JsonNode found = event.path(field);
                    double value = Math.min(Math.max(found.asDouble(), low), high);
                    row.put((float) (!found.isNumber() ? missing : switch (scale) {
                        case "standardise" -> (value - mean) / std;
                        case "log1p" -> Math.copySign(Math.log1p(Math.abs(value)), value);
                        default -> value;
                    }));
                };
            }
            case "category": {
                if (!entry.get("encoding").asText().equals("one_hot")) {
                    break;
                }
                String field = entry.get("field").asText();
                boolean unknown = unknown(entry);
                Map<String, Integer> words = new HashMap<>();
                entry.get("vocabulary").forEach(word -> words.put(word.asText(), words.size()));
                return (row, event, gap) -> {
                    int at = words.getOrDefault(event.path(field).asText(), words.size());
                    for (int i = 0; i < words.size() + (unknown ? 1 : 0); i++) {
                        row.put(i == at ? 1f : 0f);
                    }
                };
            }
            default:
        }
        throw new IllegalArgumentException("features.toml has a column that the peers do not know: " + entry);
    }

    private static boolean unknown(JsonNode entry) {
        return entry.path("unknown").asBoolean();
    }
}
