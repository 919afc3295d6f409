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
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;

/** Scores payments one at a time; the store holds of each card the time of its last payment and the hidden floats. */
final class Scorer implements Processor<String, byte[], String, byte[]> {
    static final String STORE = "cards";
    private static final OrtEnvironment ORT = OrtEnvironment.getEnvironment();
    private static final ObjectMapper JSON = new ObjectMapper();

    private final Recipe recipe;
    private final OrtSession session;
    private final float init;
    private final String output;
    private final FloatBuffer x, before, logit, after;
    private final Map<String, OnnxTensor> inputs, outputs;
    private ProcessorContext<String, byte[]> context;
    private KeyValueStore<String, byte[]> store;

    /** Buffers are made once: the tensors look at their memory, nothing is allocated for an event. */
    Scorer(Path folder) {
        try {
            TomlMapper toml = new TomlMapper();
            recipe = new Recipe(toml.readTree(folder.resolve("features.toml").toFile()));
            JsonNode model = toml.readTree(folder.resolve("model.toml").toFile());
            JsonNode state = model.get("state").get(0), head = model.get("head");
            if (model.get("state").size() != 1 || !head.get("kind").asText().equals("score") || !head.get("link").asText().equals("logit") || head.has("calibration")) {
                throw new IllegalArgumentException("a score of a single state is served, no other model");
            }
            int hidden = state.get("shape").get(0).asInt();
            init = (float) state.get("init").asDouble();
            output = head.get("outputs").get(0).asText();
            x = floats(recipe.width);
            before = floats(hidden);
            logit = floats(1);
            after = floats(hidden);
            inputs = Map.of(model.get("input").get("features").asText(), tensor(x), state.get("input").asText(), tensor(before));
            outputs = Map.of(output, tensor(logit), state.get("output").asText(), tensor(after));
            OrtSession.SessionOptions options = new OrtSession.SessionOptions();
            options.setIntraOpNumThreads(1);
            options.setInterOpNumThreads(1);
            session = ORT.createSession(folder.resolve("model.onnx").toString(), options);
        } catch (IOException | OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    @Override
    public void init(ProcessorContext<String, byte[]> context) {
        this.context = context;
        store = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, byte[]> record) {
        try {
            JsonNode event = JSON.readTree(record.value());
            long time = event.get("ts").asLong();
            long gap = -1;
            byte[] held = store.get(record.key());
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
            ByteBuffer bytes = ByteBuffer.allocate(8 + 4 * after.capacity()).putLong(time);
            after.clear();
            bytes.asFloatBuffer().put(after);
            store.put(record.key(), bytes.array());
            ObjectNode row = JSON.createObjectNode();
            row.set("id", event.get("id"));
            row.set("card", event.get("card"));
            row.put("score", 1.0 / (1.0 + Math.exp(-logit.get(0))));
            context.forward(record.withValue(JSON.writeValueAsBytes(row)));
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
