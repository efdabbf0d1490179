export { WalClosedError, WalCorruptError, type WalDamage, WalExistsError, WalFailedError, WalMissingError } from "./errors.ts";
export { readSnapshotFile, writeSnapshotFile } from "./snapshot-file.ts";
export { Wal, type WalAppend, type WalContents, type WalCreateOptions, type WalFace, type WalMetadata, type WalOptions } from "./wal.ts";
