CREATE TABLE IF NOT EXISTS `{database}`.logs{local} {on_cluster}
(
    tenant LowCardinality(String),
    timestamp DateTime64(9, 'UTC'),
    observed_timestamp DateTime64(9, 'UTC'),
    severity_number UInt8,
    severity_text LowCardinality(String),
    service LowCardinality(String),
    host LowCardinality(String),
    event_name LowCardinality(String),
    body String,
    attributes Map(LowCardinality(String), String),
    attribute_types LowCardinality(String),
    resource Map(LowCardinality(String), String),
    resource_types LowCardinality(String),
    trace_id String,
    span_id String,
    batch LowCardinality(String),
    line UInt32,
    time DateTime64(9, 'UTC') ALIAS timestamp,
    message String ALIAS body,
    level LowCardinality(String) ALIAS multiIf(severity_number = 0, 'unknown', severity_number <= 4, 'trace', severity_number <= 8, 'debug', severity_number <= 12, 'info', severity_number <= 16, 'warn', severity_number <= 20, 'error', 'fatal')
)
ENGINE = {replicated}MergeTree
PARTITION BY toDate(timestamp)
ORDER BY (tenant, timestamp)
SETTINGS non_replicated_deduplication_window = 10000;
