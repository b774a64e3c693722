// The head of a zstd frame, read without decompressing anything.

const MAGIC = 0xfd2fb528;
/** Bytes of the content size field by its flag; a flag of 0 has one byte only when there is a single segment. */
const SIZE_BYTES = [1, 2, 4, 8] as const;
const DICTIONARY_BYTES = [0, 1, 2, 4] as const;

/**
 * Content size in bytes that a zstd frame says it has; undefined when there is no whole frame head or it does not say.
 * Source: RFC 8878, section 3.1.1.
 */
export function frameContentSize(payload: Uint8Array): number | undefined {
  if (payload.length < 6) return undefined;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  if (view.getUint32(0, true) !== MAGIC) return undefined;
  const descriptor = view.getUint8(4);
  const singleSegment = (descriptor & 0x20) !== 0;
  const sizeFlag = (descriptor >> 6) as 0 | 1 | 2 | 3;
  if (sizeFlag === 0 && !singleSegment) return undefined;
  const at = 5 + (singleSegment ? 0 : 1) + DICTIONARY_BYTES[(descriptor & 3) as 0 | 1 | 2 | 3];
  if (at + SIZE_BYTES[sizeFlag] > payload.length) return undefined;
  switch (sizeFlag) {
    case 0:
      return view.getUint8(at);
    case 1:
      return view.getUint16(at, true) + 256;
    case 2:
      return view.getUint32(at, true);
    case 3:
      return Number(view.getBigUint64(at, true));
    default:
      throw sizeFlag satisfies never;
  }
}
