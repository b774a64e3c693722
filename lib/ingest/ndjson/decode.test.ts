// What becomes of fields, and every bound of a record.

import { expect, it } from "vitest";
import { recordLimits } from "../decoded.ts";
import { FieldMap } from "./fields.ts";
import { fieldMaps } from "./rename.ts";
import { decodeAll, NOW_MS, SETTINGS } from "./testing.ts";

const NOW = { time: "1735689600.123000000" };
const TRACE = "0AF7651916CD43DD8448EB211C80319C";

it.each<[string, string, object, object, object?]>([
  ["an empty object takes the time of arrival", "{}", NOW, {}],
  ["nested names are dotted", '{"service":{"name":"api"},"a":{"b":{"c":1}}}', { ...NOW, service: "api" }, { "a.b.c": "n:1" }],
  [
    "the better name wins, wherever it stands",
    '{"ts":"2025-01-01T00:00:01Z","timestamp":"2025-01-01T00:00:02Z"}',
    { time: "1735689602.0" },
    { ts: "s:2025-01-01T00:00:01Z" },
  ],
  ["a worse name behind it is an attribute", '{"timestamp":"2025-01-01T00:00:02Z","ts":"x"}', { time: "1735689602.0" }, { ts: "s:x" }],
  ["the last of equal names wins", '{"host":"a","host":"b"}', { ...NOW, host: "b" }, { host: "s:a" }],
  ["a level by word", '{"level":"Warning"}', { ...NOW, severityText: "Warning", severityNumber: 13 }, {}],
  ["a level by pino's number", '{"level":50}', { ...NOW, severityText: "50", severityNumber: 17 }, {}],
  ["a level nobody knows", '{"level":"blue"}', { ...NOW, severityText: "blue" }, {}],
  [
    "a severity number beats the level",
    '{"severity_number":11,"level":"error"}',
    { ...NOW, severityText: "error", severityNumber: 11 },
    {},
  ],
  ["a severity number out of range is an attribute", '{"severity_number":25}', NOW, { severity_number: "n:25" }],
  ["a severity number as text is an attribute", '{"severity_number":"9"}', NOW, { severity_number: "s:9" }],
  [
    "ids are lower case",
    `{"trace_id":"${TRACE}","span_id":"B7AD6B7169203331"}`,
    { ...NOW, traceId: TRACE.toLowerCase(), spanId: "b7ad6b7169203331" },
    {},
  ],
  ["ids that are none are attributes", '{"trace_id":"xyz","span.id":7}', NOW, { trace_id: "s:xyz", "span.id": "n:7" }],
  [
    "a worse name serves when the better is none",
    `{"trace_id":"-","traceId":"${TRACE}"}`,
    { ...NOW, traceId: TRACE.toLowerCase() },
    { trace_id: "s:-" },
  ],
  ["null is no field", '{"service":null,"message":null,"time":null,"a":null}', NOW, { a: "j:null" }],
  ["lists are JSON text", '{"host":["a"],"b":[1, {}]}', NOW, { host: 'j:["a"]', b: "j:[1, {}]" }],
  ["empty objects are JSON text", '{"a":{ }}', NOW, { a: "j:{ }" }],
  ["numbers keep their literal", '{"a":9007199254740993,"b":1.50E+10}', NOW, { a: "n:9007199254740993", b: "n:1.50E+10" }],
  ["booleans", '{"a":true,"b":false}', NOW, { a: "b:true", b: "b:false" }],
  ["attributes. is taken away", '{"attributes":{"a":1},"attributes.b":2}', NOW, { a: "n:1", b: "n:2" }],
  ["resource. is the resource", '{"resource":{"a":1,"service.name":"x"}}', { ...NOW, service: "x" }, {}, { a: "n:1" }],
  ["repeated keys are renamed", '{"k":1,"k":2,"k":3}', NOW, { "k~1": "n:1", "k~2": "n:2", k: "n:3" }],
  ["a renamed key does not meet one of its name", '{"k~1":0,"k":1,"k":2}', NOW, { "k~1": "n:0", "k~2": "n:1", k: "n:2" }],
  ["nor one that comes later", '{"k":1,"k":2,"k~1":3}', NOW, { "k~1~1": "n:1", k: "n:2", "k~1": "n:3" }],
  ["keys that end equal are renamed", '{"a.b":1,"a":{"b":2},"attributes.a.b":3}', NOW, { "a.b~1": "n:1", "a.b~2": "n:2", "a.b": "n:3" }],
  ["__proto__ is a key", '{"constructor":1,"toString":2}', NOW, { constructor: "n:1", toString: "n:2" }],
  ["milliseconds", '{"time":1735689600123}', NOW, {}],
])("%s", (_, line, fields, attributes, resource = {}) => {
  for (const body of [line, `[${line}]`, `\n ${line} \r\n`, ` [ ${line} ] `]) {
    const all = decodeAll(Buffer.from(body));
    expect(all.rejections).toEqual([]);
    expect([all.fields, all.attributes, all.resources]).toEqual([[fields], [attributes], [resource]]);
  }
});

const nested = (depth: number): string => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;
const wide = (count: number): string => JSON.stringify(Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, i])));

it.each<[string, string | Buffer, string, string]>([
  ["no JSON", "hello", "invalid_json", 'found "h"'],
  ["an open object", '{"a":1', "invalid_json", "the end"],
  ["a string", '"x"', "not_an_object", "JSON object"],
  ["a number", "17", "not_an_object", "JSON object"],
  ["bad UTF-8", Buffer.from('{"a":"\xff"}', "latin1"), "invalid_utf8", "UTF-8"],
  ["a time that is none", '{"time":"yesterday"}', "timestamp_invalid", "yesterday"],
  ["a time too far ahead", '{"time":"2025-01-03T00:00:00Z"}', "timestamp_in_future", "RELOG_RECORD_FUTURE_MAX"],
  ["too large", JSON.stringify({ message: "x".repeat(10_000) }), "record_too_large", "RELOG_RECORD_BYTES_MAX"],
  ["too many attributes", wide(201), "too_many_attributes", "RELOG_RECORD_ATTRIBUTES_MAX"],
  ["too deep", nested(9), "too_deep", "RELOG_RECORD_DEPTH_MAX"],
  ["too deep in a list", `{"a":${"[".repeat(9)}${"]".repeat(9)}}`, "too_deep", "RELOG_RECORD_DEPTH_MAX"],
  ["a long key", `{"${"k".repeat(65)}":1}`, "key_too_long", "RELOG_RECORD_KEY_BYTES_MAX"],
  ["a key that is long when flattened", `{"${"k".repeat(60)}":{"abcdef":1}}`, "key_too_long", "RELOG_RECORD_KEY_BYTES_MAX"],
  ["a very long key", `{"${"k".repeat(5000)}":{"a":1}}`, "key_too_long", "RELOG_RECORD_KEY_BYTES_MAX"],
])("%s is rejected, its neighbours are not", (_, line, code, words) => {
  const body = Buffer.concat([Buffer.from('{"message":"a"}\n'), Buffer.from(line), Buffer.from('\n{"message":"b"}')]);
  const { bodies, rejections } = decodeAll(body);
  expect(bodies).toEqual(["a", "b"]);
  expect(rejections).toEqual([{ line: 2, code, message: expect.stringContaining(words) }]);
});

it.each([
  ["attributes", wide(20)],
  ["depth", nested(8)],
  ["key", `{"${"k".repeat(64)}":1}`],
  ["key behind a prefix", `{"attributes.${"k".repeat(64)}":1}`],
  ["time", '{"time":"2025-01-02T00:00:00Z"}'],
])("%s at the bound is taken", (_, line) => {
  expect(decodeAll(Buffer.from(line)).rejections).toEqual([]);
});

it.each<[string, string, string[], [number, string][]]>([
  ["an object over several lines", '{\n "message":\n "a\\nb"\n}\n', ["a\nb"], []],
  [
    "two objects over several lines are no lines",
    '{\n"message":"a"}\n{\n"message":"b"}',
    [],
    [
      [1, "invalid_json"],
      [2, "not_an_object"],
      [3, "invalid_json"],
      [4, "not_an_object"],
    ],
  ],
  ["a too deep object over several lines", `{\n"a":${nested(9)}\n}`, [], [[1, "too_deep"]]],
  [
    "a broken line before a deep one",
    `{"a":\n${nested(9)}\n{"message":"b"}`,
    ["b"],
    [
      [1, "invalid_json"],
      [2, "too_deep"],
    ],
  ],
  ["blank lines count", '\n\n{"message":"a"}\n\n1', ["a"], [[5, "not_an_object"]]],
  ["an array", '[{"message":"a"},1,{"message":"b"}]', ["a", "b"], [[2, "not_an_object"]]],
  ["an array over lines", '[\n{"message":"a \\" b"},\n{"message":"c"}\n]', ['a " b', "c"], []],
  ["an empty array", " [ ] ", [], []],
  ["an array that breaks", '[{"message":"a"},{"message":}]', ["a"], [[2, "invalid_json"]]],
  ["an array without an end", '[{"message":"a"}', ["a"], [[2, "invalid_json"]]],
  ["something behind an array", '[{"message":"a"}]\n[{"message":"b"}]', ["a"], [[2, "invalid_json"]]],
  ["nothing", "", [], []],
])("%s", (_, body, bodies, rejections) => {
  const all = decodeAll(Buffer.from(body));
  expect([all.bodies, all.rejections.map(({ line, code }) => [line, code])]).toEqual([bodies, rejections]);
});

it("renamed fields replace the list of their field, and take their name from others", () => {
  const map = new FieldMap({ message: ["text.inner", "host"], time: ["größe"] });
  const all = decodeAll(Buffer.from('{"text":{"inner":"m"},"host":"h","message":"x","größe":1735689601,"time":"no time"}'), undefined, map);
  expect(all.bodies).toEqual(["m"]);
  expect(all.fields).toEqual([{ time: "1735689601.0" }]);
  expect(all.attributes).toEqual([{ host: "s:h", message: "s:x", time: "s:no time" }]);
});

it("rename parameters are bounded, and equal ones share a map", () => {
  const maps = fieldMaps();
  const given = (value: string) => maps((name) => (name === "time_field" ? value : undefined));
  expect(given("a, b")).toBe(given("a,b"));
  for (const bad of ["", "a,,b", "x".repeat(257), Array(17).fill("a").join()]) expect(() => given(bad)).toThrow(/time_field takes 1 to 16/);
});

// Each of these took minutes or gigabytes once; here they are merely linear.
it.each([
  ["a key 40000 times", `{${Array(40_000).fill('"k":1').join()}}`],
  ["a long prefix with many children", `{"${"p".repeat(100_000)}":{${Array.from({ length: 15_000 }, (_, i) => `"k${i}":1`).join()}}}`],
  ["an array without backslashes", `[${Array(15_000).fill('{"a":"b"}').join()}]`],
])("%s is refused or taken in no time", (_, body) => {
  const limits = recordLimits({ ...SETTINGS, recordBytesMax: 300_000 }, NOW_MS);
  const all = decodeAll(Buffer.from(body), limits);
  expect(all.bodies.length + all.rejections.length).toBeGreaterThan(0);
});
