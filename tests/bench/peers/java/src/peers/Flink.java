package peers;

import java.nio.file.Path;
import java.util.Map;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/** The job as an application of Flink, in a cluster within this process: BROKER INPUT OUTPUT GUARANTEE PACKAGE STATE_DIR. */
public final class Flink {
    private static final TypeInformation<byte[]> BYTES = PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;
    private static final TypeInformation<Tuple2<String, byte[]>> PAIR = Types.TUPLE(Types.STRING, BYTES);

    private static final class Scorer extends KeyedProcessFunction<String, Tuple2<String, byte[]>, Tuple2<String, byte[]>> {
        private final String folder;
        private transient Job job;
        private transient ValueState<byte[]> state;

        Scorer(String folder) {
            this.folder = folder;
        }

        @Override
        public void open(OpenContext context) {
            job = new Job(Path.of(folder));
            state = getRuntimeContext().getState(new ValueStateDescriptor<>("card", BYTES));
        }

        @Override
        public void processElement(Tuple2<String, byte[]> payment, Context context, Collector<Tuple2<String, byte[]>> out) throws Exception {
            Job.Scored scored = job.one(payment.f1, state.value());
            state.update(scored.state());
            out.collect(Tuple2.of(payment.f0, scored.row()));
        }
    }

    private static final class Payments implements KafkaRecordDeserializationSchema<Tuple2<String, byte[]>> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Tuple2<String, byte[]>> out) {
            out.collect(Tuple2.of(new String(record.key()), record.value()));
        }

        @Override
        public TypeInformation<Tuple2<String, byte[]>> getProducedType() {
            return PAIR;
        }
    }

    public static void main(String[] args) throws Exception {
        String output = args[2];
        Configuration settings = Configuration.fromMap(Map.of(
            "state.backend.type", "rocksdb",
            "execution.checkpointing.interval", "10 s",
            "execution.checkpointing.incremental", "true",
            "execution.checkpointing.dir", Path.of(args[5]).toUri().toString(),
            "taskmanager.memory.managed.size", "256 mb",
            "pipeline.object-reuse", "true"
        ));
        StreamExecutionEnvironment flink = StreamExecutionEnvironment.getExecutionEnvironment(settings);
        flink.setParallelism(2);
        KafkaSource<Tuple2<String, byte[]>> source = KafkaSource.<Tuple2<String, byte[]>>builder()
            .setBootstrapServers(args[0])
            .setTopics(args[1])
            .setGroupId(output)
            .setStartingOffsets(OffsetsInitializer.earliest())
            .setDeserializer(new Payments())
            .build();
        KafkaSink<Tuple2<String, byte[]>> sink = KafkaSink.<Tuple2<String, byte[]>>builder()
            .setBootstrapServers(args[0])
            .setDeliveryGuarantee(DeliveryGuarantee.valueOf(args[3]))
            .setTransactionalIdPrefix(output)
            .setProperty("transaction.timeout.ms", "600000")
            .setRecordSerializer((KafkaRecordSerializationSchema<Tuple2<String, byte[]>>)
                (row, context, time) -> new ProducerRecord<>(output, row.f0.getBytes(), row.f1))
            .build();
        flink.fromSource(source, WatermarkStrategy.noWatermarks(), "payments")
            .keyBy(payment -> payment.f0, Types.STRING)
            .process(new Scorer(args[4]), PAIR)
            .sinkTo(sink);
        flink.execute("peers");
    }
}
