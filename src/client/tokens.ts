/** The token that goes with every request when the client has credentials: fetched when first needed, and again when a member refuses it. */
import { type AuthenticateRequest, AuthService } from "../api/index.ts";
import { EtcdError } from "../base/errors.ts";

export interface Credentials {
  readonly username: string;
  readonly password: string;
}

type Authenticate = (method: typeof AuthService.authenticate, request: AuthenticateRequest) => Promise<{ token: string }>;

export class Tokens {
  readonly #credentials: Credentials;
  readonly #authenticate: Authenticate;
  #token: string | undefined;
  #fetching: Promise<string> | undefined;

  /** @param authenticate asks some member; its deadline is the caller's business. */
  constructor(credentials: Credentials, authenticate: Authenticate) {
    this.#credentials = credentials;
    this.#authenticate = authenticate;
  }

  /** The token at hand; an empty one while authentication is off on the server. */
  get current(): string | undefined {
    return this.#token;
  }

  /** One request for all who wait. */
  get(): Promise<string> {
    if (this.#token !== undefined) return Promise.resolve(this.#token);
    this.#fetching ??= this.#fetch().finally(() => {
      this.#fetching = undefined;
    });
    return this.#fetching;
  }

  /** A member refused it. Unless there is a newer one already, the next `get` fetches one. */
  refused(token: string | undefined): void {
    if (token === this.#token) this.#token = undefined;
  }

  async #fetch(): Promise<string> {
    try {
      const { token } = await this.#authenticate(AuthService.authenticate, {
        name: this.#credentials.username,
        password: this.#credentials.password,
      });
      this.#token = token;
    } catch (error) {
      // Credentials may be configured before authentication is turned on; a refusal then leads back here.
      if (!EtcdError.is(error) || error.reason !== "auth-not-enabled") throw error;
      this.#token = "";
    }
    return this.#token;
  }
}

const WANT_NEW_TOKEN: ReadonlySet<string> = new Set(["invalid-auth-token", "auth-old-revision", "user-empty"]);

/** The request was refused for its token, before anything happened: a new one may help. */
export function wantsNewToken(error: unknown): boolean {
  return EtcdError.is(error) && WANT_NEW_TOKEN.has(error.reason);
}
