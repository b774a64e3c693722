import { defineConfig } from "vitest/config";

// Tests run on the real engines. Two files at a time is what two cores carry; a larger machine may raise it with --maxWorkers.
export default defineConfig({
  test: {
    include: ["lib/**/*.test.ts", "cmd/**/*.test.ts", "test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
