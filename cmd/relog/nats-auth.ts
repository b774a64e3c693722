// `relog nats-auth`: the pair of keys with which gateways let producers into NATS.
//
// Promises: asks nobody and keeps nothing; the seed is shown once.

import { readArguments } from "../../lib/cli/args.ts";
import type { Command } from "../../lib/cli/command.ts";
import { EXIT } from "../../lib/cli/command.ts";
import { jsonLine } from "../../lib/cli/printable.ts";
import { jsonOption } from "../../lib/cli/table.ts";
import { accountSigner, newAccountSeed } from "../../lib/streams/nkey.ts";

export const command: Command = {
  summary: "Makes the keys with which gateways let producers into NATS.",
  usage: `[--json]

  --json   as a JSON object: seed, issuer

The seed is a secret, the gateways' NATS_CALLOUT_SEED. The issuer is public: auth_callout in the configuration of nats-server
(RELOG_NATS_CALLOUT_ISSUER in ops/nats/accounts.conf). ops/README.md says how to change them.`,
  async run(args, io) {
    const { options } = readArguments(args, jsonOption);
    const seed = newAccountSeed();
    const issuer = accountSigner(seed)!.publicKey;
    io.out(options.json ? jsonLine({ seed, issuer }) : `seed ${seed}\nissuer ${issuer}\n`);
    return EXIT.ok;
  },
};
