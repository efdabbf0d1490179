/** The v3 API: messages with their wire form, services, errors and the JSON mapping. No behaviour. */
export * from "./gen/index.ts";
export * from "./json.ts";
export * from "./rpc-errors.ts";
export { ProtoDecodeError, type ProtoDecodeReason } from "./wire/decode-error.ts";
export type { EnumDescriptor, FieldDescriptor, FieldKind, MessageType, MethodDescriptor } from "./wire/message-type.ts";
export { MESSAGE_DEPTH_MAX } from "./wire/reader.ts";
export { Writer } from "./wire/writer.ts";
