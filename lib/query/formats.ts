// The formats an answer can have, chosen by Accept.

import { RelogError } from "../base/errors.ts";

export interface AnswerFormat {
  readonly mediaType: string;
  /** What the header Content-Type says. */
  readonly contentType: string;
  /** ClickHouse's name of the format. */
  readonly engine: string;
}

/** The first one is the default. */
export const FORMATS: readonly AnswerFormat[] = [
  { mediaType: "application/x-ndjson", contentType: "application/x-ndjson; charset=utf-8", engine: "JSONEachRow" },
  { mediaType: "application/json", contentType: "application/json; charset=utf-8", engine: "JSON" },
  { mediaType: "text/csv", contentType: "text/csv; charset=utf-8; header=present", engine: "CSVWithNames" },
  { mediaType: "application/vnd.apache.parquet", contentType: "application/vnd.apache.parquet", engine: "Parquet" },
  { mediaType: "application/vnd.apache.arrow.stream", contentType: "application/vnd.apache.arrow.stream", engine: "ArrowStream" },
];

/** The best format for an Accept header: by its q values, then by the order of FORMATS. @throws RelogError not_acceptable */
export function chooseFormat(accept: string | undefined): AnswerFormat {
  const ranges = (accept === undefined || accept.trim() === "" ? "*/*" : accept).split(",").map((part) => {
    const [range = "", ...parameters] = part.split(";").map((text) => text.trim().toLowerCase());
    const q = parameters.find((parameter) => parameter.startsWith("q="));
    const weight = q === undefined ? 1 : Number(q.slice(2));
    return { range, weight: Number.isFinite(weight) ? weight : 0 };
  });
  let best: { format: AnswerFormat; weight: number } | undefined;
  for (const format of FORMATS) {
    const [type] = format.mediaType.split("/");
    // The most specific range that names a format decides its weight.
    const range = [format.mediaType, `${type}/*`, "*/*"]
      .map((name) => ranges.find((each) => each.range === name))
      .find((each) => each !== undefined);
    if (range !== undefined && range.weight > 0 && (best === undefined || range.weight > best.weight))
      best = { format, weight: range.weight };
  }
  if (best !== undefined) return best.format;
  throw new RelogError("not_acceptable", `no format fits Accept; there are ${FORMATS.map((format) => format.mediaType).join(", ")}`);
}
