// JetStream's error codes that we act on. Source: nats-server, server/errors.json.

export const JETSTREAM = {
  insufficientResources: 10_023,
  noMessage: 10_037,
  storageExceeded: 10_047,
  messageTooLarge: 10_054,
  nameInUse: 10_058,
  streamNotFound: 10_059,
  wrongLastSequence: 10_071,
  /** The store refuses, mostly because the stream is full. */
  storeFailed: 10_077,
  rollupFailed: 10_111,
  ingestQueueFull: 10_167,
} as const;
