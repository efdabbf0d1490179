/** A gRPC client that knows who it is: it authenticates, and again when the server has forgotten it. */

import type { MethodDescriptor } from "../../api/index.ts";
import * as api from "../../api/index.ts";
import { GrpcCode } from "../../base/errors.ts";
import { type Credentials, isAuthOff, isInvalidToken } from "./credentials.ts";
import { type CallOptions, type DuplexCall, GrpcClient, type GrpcClientOptions } from "./grpc-client.ts";
import type { GrpcError } from "./grpc-error.ts";

/** Methods that may be repeated on another server when one fails, because they change nothing or the same. */
const REPEATABLE: ReadonlySet<MethodDescriptor<never, never>> = new Set([
  api.KvService.range,
  api.LeaseService.leaseTimeToLive,
  api.LeaseService.leaseLeases,
  api.LeaseService.leaseRevoke,
  api.ClusterService.memberList,
  api.MaintenanceService.alarm,
  api.MaintenanceService.status,
  api.MaintenanceService.hashKv,
  api.AuthService.authenticate,
  api.AuthService.authStatus,
  api.AuthService.userGet,
  api.AuthService.userList,
  api.AuthService.roleGet,
  api.AuthService.roleList,
] as unknown as MethodDescriptor<never, never>[]);

export type Warn = (message: string, fields: Readonly<Record<string, unknown>>) => void;

export class Client {
  readonly endpoints: readonly string[];
  readonly #grpc: GrpcClient;
  readonly #credentials: Credentials | undefined;
  readonly #warn: Warn;
  #token: string | undefined;

  constructor(options: GrpcClientOptions, credentials: Credentials | undefined, warn: Warn) {
    this.endpoints = options.endpoints;
    this.#grpc = new GrpcClient(options);
    this.#credentials = credentials;
    this.#warn = warn;
    if (credentials !== undefined && "token" in credentials) this.#token = credentials.token;
  }

  close(): void {
    this.#grpc.close();
  }

  /** Gets a token, if there is a user. That authentication is off is no error. @throws GrpcError */
  async authenticate(timeoutMs: number): Promise<void> {
    const credentials = this.#credentials;
    if (credentials === undefined || "token" in credentials) return;
    const request = api.AuthenticateRequest.create({ name: credentials.user, password: credentials.password });
    try {
      const response = await this.#grpc.unary(api.AuthService.authenticate, request, { timeoutMs, repeatable: true });
      this.#token = response.token;
    } catch (error) {
      if (!isAuthOff(error)) throw error;
      this.#warn("authentication is not enabled; going on without", {});
    }
  }

  /** @throws GrpcError */
  async call<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): Promise<Response> {
    const attempt = (): Promise<Response> =>
      this.#grpc.unary(method, request, {
        ...options,
        headers: this.#headers(options),
        repeatable: REPEATABLE.has(method as unknown as MethodDescriptor<never, never>),
        onFailure: (error, count) => this.#report(method.path, error, count),
      });
    try {
      return await attempt();
    } catch (error) {
      if (!isInvalidToken(error) || this.#credentials === undefined || "token" in this.#credentials) throw error;
      await this.authenticate(options.timeoutMs ?? 5000);
      return attempt();
    }
  }

  stream<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    request: Request,
    options: CallOptions = {},
  ): AsyncGenerator<Response, void, undefined> {
    return this.#grpc.serverStream(method, request, { ...options, headers: this.#headers(options) });
  }

  duplex<Request extends object, Response extends object>(
    method: MethodDescriptor<Request, Response>,
    options: CallOptions = {},
  ): Promise<DuplexCall<Request, Response>> {
    return this.#grpc.duplex(method, { ...options, headers: this.#headers(options) });
  }

  #headers(options: CallOptions): Readonly<Record<string, string>> {
    return { ...options.headers, ...(this.#token === undefined ? {} : { token: this.#token }) };
  }

  /** What happened on the way only: a server's refusal is told once, as the command's error. */
  #report(method: string, error: GrpcError, attempt: number): void {
    if (error.code !== GrpcCode.Unavailable && error.code !== GrpcCode.DeadlineExceeded) return;
    this.#warn("retrying of unary invoker failed", { target: this.endpoints.join(","), method, attempt, error: error.rpcText });
  }
}
