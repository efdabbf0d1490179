export type LogFields = Readonly<Record<string, unknown>>;

/** Injected logger. `message` is a constant phrase; everything that varies is in `fields`. Never put keys' values, passwords or tokens into fields. */
export interface Logger {
  debug(fields: LogFields, message: string): void;
  info(fields: LogFields, message: string): void;
  warn(fields: LogFields, message: string): void;
  error(fields: LogFields, message: string): void;
  child(fields: LogFields): Logger;
}

const nothing = (): void => undefined;

/** Swallows everything. */
export const silentLogger: Logger = { debug: nothing, info: nothing, warn: nothing, error: nothing, child: () => silentLogger };
