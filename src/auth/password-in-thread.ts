import type * as Bcrypt from "bcryptjs";
import { requirePackage } from "../base/require-system.ts";
import type { PasswordHasher } from "./passwords.ts";

/** Hashes on the calling thread, which it blocks: for simulations, where everything happens in one thread and in one order. Use it with the lowest cost. */
export function inThreadHasher(): PasswordHasher {
  const { compareSync, hashSync } = requirePackage("bcryptjs") as typeof Bcrypt;
  return {
    async hash(password, salt) {
      return hashSync(password, salt);
    },
    async verify(password, hash) {
      try {
        return compareSync(password, hash);
      } catch (error) {
        // What is no hash fits no password.
        if (error instanceof Error) return false;
        throw error;
      }
    },
    async close() {},
  };
}
