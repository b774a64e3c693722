-- The table of records. Why it looks as it does, with the figures: docs/adr/0004 (attributes), 0005 (order), 0006 (search).
--
-- `words` is the body in lower case with blanks for digits: its text index is a quarter of one over the whole body. The
-- index is on the expression and not a preprocessor of one on `body`, because that would answer hasToken(body, ...) wrongly.
-- No index is of type set: the engine computes whole expressions on the values of such a one, and a granule may have two tenants'
-- (docs/adr/0008).
-- `retention` is the class of the record, in days, 0 for ever (lib/event/retention.ts): records leave by dropping whole
-- partitions. It is MATERIALIZED so that SELECT * does not show it; inserts give it (insert_allow_materialized_columns).
-- `bytes` is what usage counts of a record: the bytes of its texts, as BatchBuilder.size (lib/event/batch.ts); computed at the
-- insert, and not part of SELECT * either.
-- The projection `counts` has records per minute, service and severity inside the same parts, so it cannot disagree with them;
-- `usage` (docs/adr/0020) records and bytes per quarter of an hour in which they were observed, since time zones differ by quarters.
CREATE TABLE IF NOT EXISTS `{database}`.logs{local} {on_cluster}
(
    tenant LowCardinality(String),
    timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    observed_timestamp DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1)),
    severity_number UInt8,
    severity_text LowCardinality(String),
    service LowCardinality(String),
    host LowCardinality(String),
    event_name LowCardinality(String),
    body String CODEC(ZSTD(1)),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    attribute_types LowCardinality(String),
    resource Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    resource_types LowCardinality(String),
    trace_id String CODEC(ZSTD(1)),
    span_id String CODEC(ZSTD(1)),
    batch LowCardinality(String),
    line UInt32 CODEC(Delta(4), ZSTD(1)),

    retention UInt16 MATERIALIZED 0,
    bytes UInt32 MATERIALIZED length(severity_text) + length(service) + length(host) + length(event_name) + length(body) + length(trace_id) + length(span_id)
        + arraySum(x -> length(x), mapKeys(attributes)) + arraySum(x -> length(x), mapValues(attributes))
        + arraySum(x -> length(x), mapKeys(resource)) + arraySum(x -> length(x), mapValues(resource)) CODEC(ZSTD(1)),

    time DateTime64(9, 'UTC') ALIAS timestamp,
    message String ALIAS body,
    level LowCardinality(String) ALIAS multiIf(severity_number = 0, 'unknown', severity_number < 5, 'trace', severity_number < 9, 'debug', severity_number < 13, 'info', severity_number < 17, 'warn', severity_number < 21, 'error', 'fatal'),
    words String ALIAS lower(translate(body, '0123456789', '          ')),

    INDEX by_time timestamp TYPE minmax GRANULARITY 1,
    INDEX by_severity_number severity_number TYPE minmax GRANULARITY 1,
    INDEX by_text_of_severity severity_text TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_name_of_level multiIf(severity_number = 0, 'unknown', severity_number < 5, 'trace', severity_number < 9, 'debug', severity_number < 13, 'info', severity_number < 17, 'warn', severity_number < 21, 'error', 'fatal') TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_words lower(translate(body, '0123456789', '          ')) TYPE text(tokenizer = splitByNonAlpha, posting_list_codec = 'bitpacking'),
    INDEX by_attribute mapValues(attributes) TYPE bloom_filter(0.01) GRANULARITY 1,

    PROJECTION counts
    (
        SELECT tenant, toStartOfMinute(timestamp) AS minute, toStartOfFiveMinutes(timestamp) AS five_minutes, service, severity_number, severity_text, count()
        GROUP BY tenant, minute, five_minutes, service, severity_number, severity_text
    ),
    PROJECTION usage
    (
        SELECT tenant, toStartOfFifteenMinutes(observed_timestamp) AS quarter, service, count(), sum(bytes)
        GROUP BY tenant, quarter, service
    )
)
ENGINE = {replicated}MergeTree
PARTITION BY (retention, toDate(timestamp))
ORDER BY (tenant, toStartOfFiveMinutes(timestamp), severity_number >= 17, service, xxHash32(substring(translate(body, '0123456789', '0000000000'), 1, 48)), timestamp)
SETTINGS
    ttl_only_drop_parts = 1,
    index_granularity = 2048,
    fsync_after_insert = 1,
    fsync_part_directory = 1,
    non_replicated_deduplication_window = 10000,
    map_serialization_version = 'with_buckets',
    map_buckets_strategy = 'constant',
    max_buckets_in_map = 11,
    map_buckets_min_avg_size = 0,
    merge_selector_base = 10,
    max_bytes_to_merge_at_max_space_in_pool = 5000000000;

-- cluster
CREATE TABLE IF NOT EXISTS `{database}`.logs {on_cluster} AS `{database}`.logs_local
ENGINE = Distributed('{cluster}', `{database}`, logs_local, cityHash64(batch));
-- end
