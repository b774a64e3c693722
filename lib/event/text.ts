// Text on the hot path: "byte strings".
//
// A byte string is a JavaScript string whose char codes are the bytes of a UTF-8 text (each 0-255). Decoders slice a whole
// body that was read as latin1, and encoders write it back as latin1: no record is ever decoded from or encoded to UTF-16.
// Its `length` is its length in bytes.

declare const byteString: unique symbol;
export type ByteString = string & { readonly [byteString]?: true };

const NON_ASCII = /[\u0080-\uffff]/;

/** A JavaScript text as a byte string. Lone surrogates become U+FFFD. */
export function toBytes(text: string): ByteString {
  return NON_ASCII.test(text) ? Buffer.from(text, "utf8").toString("latin1") : text;
}

/** A copy that does not keep the text alive which it was cut from: for what is remembered beyond a request. */
export function owned(bytes: ByteString): ByteString {
  return Buffer.from(bytes, "latin1").toString("latin1");
}

/** A byte string as a JavaScript text. */
export function fromBytes(bytes: ByteString): string {
  return NON_ASCII.test(bytes) ? Buffer.from(bytes, "latin1").toString("utf8") : bytes;
}
