/**
 * For tsconfig.pure.json, where Node's types are absent so that the pure roots cannot use them by accident. `src/base/bytes.ts` touches the platform in their
 * stead; it is checked with the real types by tsconfig.json.
 */
declare module "node:buffer" {
  // biome-ignore lint/suspicious/noExplicitAny: whatever bytes.ts does with it is checked elsewhere.
  export type Buffer = any;
  export const Buffer: Buffer;
  export const isUtf8: Buffer;
}
declare module "node:zlib";
