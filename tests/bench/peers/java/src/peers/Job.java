package peers;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.dataformat.toml.TomlMapper;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.Map;
import java.util.Set;

/** One payment and the state of its card in, a score and the next state out. A state is the time of the card's last payment and the hidden floats. */
final class Job {
    private static final OrtEnvironment ORT = OrtEnvironment.getEnvironment();
    private static final ObjectMapper JSON = new ObjectMapper();

    private final Recipe recipe;
    private final OrtSession session;
    private final float init;
    private final FloatBuffer x, before, logit, after;
    private final Map<String, OnnxTensor> inputs, outputs;

    record Scored(byte[] row, byte[] state) {}

    /** Buffers are made once: the tensors look at their memory, no tensor is made for an event. */
    Job(Path folder) {
        try {
            TomlMapper toml = new TomlMapper();
            recipe = new Recipe(toml.readTree(folder.resolve("features.toml").toFile()));
            JsonNode model = toml.readTree(folder.resolve("model.toml").toFile());
            JsonNode state = model.get("state").get(0), head = model.get("head");
            boolean logits = head.get("kind").asText().equals("score") && head.get("link").asText().equals("logit");
            if (!logits || head.has("calibration") || model.get("state").size() != 1) {
                throw new IllegalArgumentException("a score from a single state, and no other model");
            }
            int hidden = state.get("shape").get(0).asInt();
            init = (float) state.get("init").asDouble();
            x = floats(recipe.width);
            before = floats(hidden);
            logit = floats(1);
            after = floats(hidden);
            inputs = Map.of(model.get("input").get("features").asText(), tensor(x), state.get("input").asText(), tensor(before));
            outputs = Map.of(head.get("outputs").get(0).asText(), tensor(logit), state.get("output").asText(), tensor(after));
            OrtSession.SessionOptions options = new OrtSession.SessionOptions();
            options.setIntraOpNumThreads(1);
            options.setInterOpNumThreads(1);
            session = ORT.createSession(folder.resolve("model.onnx").toString(), options);
        } catch (IOException | OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    /** `held` is null for a card's first payment. */
    Scored one(byte[] payload, byte[] held) {
        try {
            JsonNode event = JSON.readTree(payload);
            long time = event.get("ts").asLong();
            long gap = -1;
            before.clear();
            if (held == null) {
                while (before.hasRemaining()) {
                    before.put(init);
                }
            } else {
                ByteBuffer bytes = ByteBuffer.wrap(held);
                long last = bytes.getLong();
                gap = Math.max(time - last, 0);
                time = Math.max(time, last);
                before.put(bytes.asFloatBuffer());
            }
            recipe.put(x, event, gap);
            session.run(inputs, Set.of(), outputs).close();
            ByteBuffer state = ByteBuffer.allocate(8 + 4 * after.capacity()).putLong(time);
            after.clear();
            state.asFloatBuffer().put(after);
            ObjectNode row = JSON.createObjectNode();
            row.set("id", event.get("id"));
            row.set("card", event.get("card"));
            row.put("score", 1.0 / (1.0 + Math.exp(-logit.get(0))));
            return new Scored(JSON.writeValueAsBytes(row), state.array());
        } catch (IOException | OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    private static FloatBuffer floats(int count) {
        return ByteBuffer.allocateDirect(4 * count).order(ByteOrder.nativeOrder()).asFloatBuffer();
    }

    private static OnnxTensor tensor(FloatBuffer floats) throws OrtException {
        return OnnxTensor.createTensor(ORT, floats, new long[] {1, floats.capacity()});
    }
}
