import { Reader } from "./reader.ts";
import { Writer } from "./writer.ts";

/** The protobuf type of a field. "map" is a map with string keys and message values. */
export type FieldKind = "int32" | "uint32" | "int64" | "uint64" | "bool" | "enum" | "string" | "bytes" | "message" | "map";

export interface EnumDescriptor {
  /** Full protobuf name. */
  readonly typeName: string;
  /** Name to number. Maps, so that `__proto__` is a name like any other. */
  readonly numbers: ReadonlyMap<string, number>;
  readonly names: ReadonlyMap<number, string>;
}

/** What the JSON mapping, and other generic code, must know of one field. */
export interface FieldDescriptor {
  /** Property of the TypeScript object. */
  readonly name: string;
  /** Name in the .proto file, which is also what JSON answers use. */
  readonly protoName: string;
  /** The lowerCamelCase name by protobuf's rule; JSON requests may use it too. */
  readonly jsonName: string;
  readonly number: number;
  readonly kind: FieldKind;
  readonly repeated: boolean;
  /** For 64-bit kinds: a number that saturates at ±(2^53 - 1) instead of a bigint. */
  readonly counter: boolean;
  /** Full protobuf name of the oneof which this field is a member of. */
  readonly oneof: string | undefined;
  readonly enum: EnumDescriptor | undefined;
  /** Type of the sub-messages; behind a function because messages may contain themselves. */
  readonly message: (() => MessageType<object>) | undefined;
}

/** How to make, write and read one kind of message. */
export interface MessageType<T extends object> {
  /** Full protobuf name, such as `etcdserverpb.RangeRequest`. */
  readonly typeName: string;
  /** In order of declaration. */
  readonly fields: readonly FieldDescriptor[];
  /** A message with every field present: what `init` gives, defaults otherwise. Arrays and bytes are taken over, not copied. */
  create(init?: Partial<T>): T;
  /** The wire form, in memory of its own. */
  encode(message: T): Uint8Array;
  /** Writes the wire form in front of what `writer` holds. Saves the copy that {@link encode} makes. */
  encodeTo(writer: Writer, message: T): void;
  /** Length of the wire form in bytes. */
  byteLength(message: T): number;
  /** The message by protobuf's JSON mapping as etcd's gateway prints it: names of the .proto file, no white space, no defaults. */
  printJson(message: T): string;
  /**
   * Reads a whole message. Bytes fields of the result are views into `bytes`: copy them before keeping them if that buffer is reused.
   * @throws ProtoDecodeError
   */
  decode(bytes: Uint8Array): T;
}

/** Shared by all encodes: a message is written without interruption, and copied out before the next begins. */
const scratch = new Writer(65_536);

class GeneratedMessageType<T extends object> implements MessageType<T> {
  readonly typeName: string;
  readonly fields: readonly FieldDescriptor[];
  readonly create: (init?: Partial<T>) => T;
  readonly encodeTo: (writer: Writer, message: T) => void;
  readonly printJson: (message: T) => string;
  readonly #read: (reader: Reader, end: number, message: T) => T;

  constructor(
    typeName: string,
    fields: readonly FieldDescriptor[],
    create: (init?: Partial<T>) => T,
    write: (writer: Writer, message: T) => void,
    read: (reader: Reader, end: number, message: T) => T,
    print: (message: T) => string,
  ) {
    this.typeName = typeName;
    this.fields = fields;
    this.create = create;
    this.encodeTo = write;
    this.printJson = print;
    this.#read = read;
  }

  encode(message: T): Uint8Array {
    scratch.reset();
    this.encodeTo(scratch, message);
    return scratch.copy();
  }

  byteLength(message: T): number {
    scratch.reset();
    this.encodeTo(scratch, message);
    return scratch.length;
  }

  decode(bytes: Uint8Array): T {
    return this.#read(new Reader(bytes), bytes.length, this.create());
  }
}

/** For generated code. */
export function messageType<T extends object>(
  typeName: string,
  fields: readonly FieldDescriptor[],
  create: (init?: Partial<T>) => T,
  write: (writer: Writer, message: T) => void,
  read: (reader: Reader, end: number, message: T) => T,
  print: (message: T) => string,
): MessageType<T> {
  return new GeneratedMessageType(typeName, fields, create, write, read, print);
}

/** For generated code. */
export function enumDescriptor(typeName: string, values: Readonly<Record<string, number>>): EnumDescriptor {
  const numbers = new Map(Object.entries(values));
  return { typeName, numbers, names: new Map(Array.from(numbers, ([name, number]) => [number, name])) };
}

/** For generated code. */
export function field(
  name: string,
  protoName: string,
  jsonName: string,
  number: number,
  kind: FieldKind,
  more: Partial<Pick<FieldDescriptor, "repeated" | "counter" | "oneof" | "enum" | "message">> = {},
): FieldDescriptor {
  return {
    name,
    protoName,
    jsonName,
    number,
    kind,
    repeated: more.repeated ?? false,
    counter: more.counter ?? false,
    oneof: more.oneof,
    enum: more.enum,
    message: more.message,
  };
}

/** One method of a service. */
export interface MethodDescriptor<Request extends object, Response extends object> {
  /** Full name of the service, such as `etcdserverpb.KV`. */
  readonly service: string;
  readonly name: string;
  /** gRPC path, such as `/etcdserverpb.KV/Range`. */
  readonly path: string;
  readonly request: MessageType<Request>;
  readonly response: MessageType<Response>;
  readonly clientStreaming: boolean;
  readonly serverStreaming: boolean;
  /** Routes of the JSON gateway, aliases included; empty if the method has none. */
  readonly httpPaths: readonly string[];
}
