// The whole ClickHouse from npm in a process of its own: the call blocks its thread until stdin closes.

import { DataType, load, open } from "ffi-rs";

const library = `${process.argv[2]}/libchdb.so`;
const args = process.argv.slice(3);
open({ library: "chdb", path: library });
const paramsType = [DataType.I32, DataType.StringArray];
load({ library: "chdb", funcName: "chdb_query_cmdline", retType: DataType.I32, paramsType, paramsValue: [args.length, args] });
process.exit(1);
