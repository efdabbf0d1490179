/**
 * Who calls, and whether they may: the part of the checks that comes before replication and around reads (api-semantics.md section 16.3 to 16.5). What changes
 * keys is checked again, and decided, when it is applied. With authentication off everything here passes and no token is looked at.
 */
import { rpcError } from "../../api/rpc-errors.ts";
import type { AuthStore, Identity, Rights, TokenProvider } from "../../auth/index.ts";
import type { Revision } from "../../base/ids.ts";
import type { CallContext } from "./services.contract.ts";

export interface AccessOptions {
  /** The current one: a snapshot from the leader replaces it. */
  auth(): AuthStore;
  readonly tokens: TokenProvider<AbortSignal>;
  /** The names of verified client certificates count. */
  readonly clientCertAuth: boolean;
}

export class Access {
  readonly #options: AccessOptions;

  constructor(options: AccessOptions) {
    this.#options = options;
  }

  get enabled(): boolean {
    return this.#options.auth().enabled;
  }

  /**
   * Who calls; undefined when they do not say, or when nobody needs to. A promise only when something has to be waited for.
   * @throws invalid-auth-token
   */
  identify(context: CallContext): Identity | undefined | Promise<Identity> {
    const { tokens, clientCertAuth } = this.#options;
    const auth = this.#options.auth();
    if (!auth.enabled) return undefined;
    if (context.token !== undefined) return tokens.identify(context.token, context.signal);
    if (clientCertAuth && context.commonName !== undefined && context.commonName !== "")
      return { username: context.commonName, revision: auth.revision };
    return undefined;
  }

  /** What they may do with keys, by the state of now. */
  rightsOf(who: Identity | undefined): Rights {
    return this.#options.auth().rightsOf(who?.username ?? "", who?.revision ?? 0);
  }

  /** The same for calls about leases. */
  leaseRightsOf(who: Identity | undefined): Rights {
    return this.#options.auth().leaseRightsOf(who?.username ?? "", who?.revision ?? 0);
  }

  get revision(): Revision {
    return this.#options.auth().revision;
  }

  /** After a read: what it was allowed by must still hold. @throws auth-old-revision */
  confirm(who: Identity | undefined): void {
    if (who !== undefined && who.revision !== 0 && who.revision !== this.#options.auth().revision) throw rpcError("auth-old-revision");
  }

  /** For calls that anybody may make who says who they are. @throws user-empty, invalid-auth-token */
  async requireUser(context: CallContext): Promise<Identity | undefined> {
    if (!this.enabled) return undefined;
    const who = await this.identify(context);
    if (who === undefined && this.enabled) throw rpcError("user-empty");
    return who;
  }

  /** For calls of administrators. @throws user-empty, user-not-found, permission-denied, invalid-auth-token */
  async requireRoot(context: CallContext): Promise<void> {
    if (!this.enabled) return;
    const who = await this.identify(context);
    this.#options.auth().requireAdmin(who?.username ?? "");
  }
}
