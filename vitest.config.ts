import { defineConfig } from "vitest/config";

// Tests run on the real engines. Three files at a time is what two cores carry, for tests wait more than they compute; a larger machine may raise it with --maxWorkers.
export default defineConfig({
  test: {
    include: ["lib/**/*.test.ts", "cmd/**/*.test.ts", "test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 3,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
