// Buffers used over and over: a fresh large buffer costs page faults and garbage for every request.
//
// Bounds: what the pool keeps idle. Whoever takes a buffer and never gives it back only loses the saving.

const SMALLEST_BYTES = 64 * 1024;
const LARGEST_BYTES = 4 * 2 ** 20;
const IDLE_BYTES_MAX = 24 * 2 ** 20;

const idle = new Map<number, Buffer[]>();
let idleBytes = 0;

function sizeClass(bytes: number): number {
  return Math.max(SMALLEST_BYTES, 2 ** Math.ceil(Math.log2(bytes)));
}

/** A buffer of at least `bytes` bytes with arbitrary content. */
export function takeBuffer(bytes: number): Buffer {
  const size = sizeClass(bytes);
  const found = idle.get(size)?.pop();
  if (found === undefined) return Buffer.allocUnsafeSlow(size > LARGEST_BYTES ? bytes : size);
  idleBytes -= size;
  return found;
}

/** Gives a whole buffer of takeBuffer back. The caller and everything that views it must be done with it. */
export function giveBuffer(buffer: Buffer): void {
  const size = buffer.length;
  if (size > LARGEST_BYTES || size !== sizeClass(size) || idleBytes + size > IDLE_BYTES_MAX) return;
  const list = idle.get(size);
  if (list === undefined) idle.set(size, [buffer]);
  else list.push(buffer);
  idleBytes += size;
}
