package peers;

import java.nio.file.Path;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/** The job as an application of Kafka Streams: BROKER INPUT OUTPUT GUARANTEE PACKAGE STATE_DIR. */
public final class Streams {
    private static final String STORE = "cards";

    private static final class Scorer implements Processor<String, byte[], String, byte[]> {
        private final Job job;
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, byte[]> store;

        Scorer(Path folder) {
            job = new Job(folder);
        }

        @Override
        public void init(ProcessorContext<String, byte[]> context) {
            this.context = context;
            store = context.getStateStore(STORE);
        }

        @Override
        public void process(Record<String, byte[]> record) {
            Job.Scored scored = job.one(record.value(), store.get(record.key()));
            store.put(record.key(), scored.state());
            context.forward(record.withValue(scored.row()));
        }
    }

    public static void main(String[] args) {
        Path folder = Path.of(args[4]);
        Properties settings = new Properties();
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, args[0]);
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, args[2]);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, args[3]);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, args[5]);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 2);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");

        Serdes.StringSerde text = new Serdes.StringSerde();
        Serdes.ByteArraySerde bytes = new Serdes.ByteArraySerde();
        Topology topology = new Topology();
        topology.addSource("payments", text.deserializer(), bytes.deserializer(), args[1]);
        topology.addProcessor("score", () -> new Scorer(folder), "payments");
        topology.addStateStore(Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), text, bytes).withCachingEnabled(), "score");
        topology.addSink("scores", args[2], text.serializer(), bytes.serializer(), "score");

        KafkaStreams streams = new KafkaStreams(topology, settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return null;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
