/** The ways between machines: how long what travels takes, what is lost or doubled, and what does not pass at all. */
import type { Random } from "../../../src/base/random.ts";
import { seededRandom } from "../../../src/base/random.ts";
import { Dice, seedFor } from "./dice.ts";
import type { Plan } from "./plan.ts";
import type { Scheduler } from "./scheduler.ts";

const NOTHING: readonly number[] = [];
/** After this long without a sign of life a connection counts as broken (the peers' read deadline). */
const NOTICED_AFTER_MS = 5000;

interface Link {
  readonly random: Random;
  readonly dice: Dice;
  /** Reasons why nothing passes in this direction. */
  blocks: number;
  /** The members know. */
  cut: boolean;
  /** When the last parcel arrives: streams keep their order. */
  lastAt: number;
}

/** More of everything, for a while. */
export interface Weather {
  readonly lossPercent: number;
  readonly duplicatePercent: number;
  readonly delayMs: number;
}

export class Links {
  /** The members of both ends learn that the connection broke, or came back. */
  onCut: (from: number, to: number, cut: boolean) => void = () => undefined;
  lost = 0;
  duplicated = 0;
  delivered = 0;
  readonly #plan: Plan;
  readonly #scheduler: Scheduler;
  readonly #links = new Map<number, Link>();
  #weather: Weather[] = [];
  #calm = false;

  constructor(plan: Plan, scheduler: Scheduler) {
    this.#plan = plan;
    this.#scheduler = scheduler;
  }

  /** No more loss and duplicates; delays stay. What is on its way still comes, however late. */
  calmDown(): void {
    this.#calm = true;
    this.#weather = [];
    for (const [key, link] of this.#links) {
      if (link.blocks === 0) continue;
      link.blocks = 0;
      this.#restore(key, link);
    }
  }

  addWeather(weather: Weather): void {
    this.#weather.push(weather);
  }

  removeWeather(weather: Weather): void {
    this.#weather = this.#weather.filter((one) => one !== weather);
  }

  isBlocked(from: number, to: number): boolean {
    return (this.#links.get(keyOf(from, to))?.blocks ?? 0) > 0;
  }

  block(from: number, to: number, noticed: boolean): void {
    const key = keyOf(from, to);
    const link = this.#link(from, to);
    link.blocks += 1;
    if (link.cut) return;
    const notice = (): void => {
      if (link.blocks === 0 || link.cut) return;
      link.cut = true;
      this.onCut(Math.floor(key / 64), key % 64, true);
    };
    if (noticed) notice();
    else this.#scheduler.after(NOTICED_AFTER_MS, notice);
  }

  unblock(from: number, to: number): void {
    const link = this.#link(from, to);
    if (link.blocks === 0) return;
    link.blocks -= 1;
    if (link.blocks === 0) this.#restore(keyOf(from, to), link);
  }

  /** Delays of each copy. */
  route(from: number, to: number, once: boolean): readonly number[] {
    const link = this.#link(from, to);
    if (link.blocks > 0) {
      this.lost += 1;
      return NOTHING;
    }
    const { network } = this.#plan;
    const { random, dice } = link;
    let lossPerMille = 0;
    let duplicatePerMille = 0;
    let extraMs = 0;
    if (!this.#calm) {
      lossPerMille = network.lossPerMille;
      duplicatePerMille = network.duplicatePerMille;
      for (const weather of this.#weather) {
        lossPerMille += weather.lossPercent * 10;
        duplicatePerMille += weather.duplicatePercent * 10;
        extraMs += weather.delayMs;
      }
    }
    if (lossPerMille > 0 && random.below(1000) < lossPerMille) {
      this.lost += 1;
      return NOTHING;
    }
    const { now } = this.#scheduler;
    // Calm is a network that the election timeout was chosen for.
    const usualMs = this.#calm ? Math.min(network.delayMs, this.#plan.settings.electionMs / 16) : network.delayMs;
    const meanMs = usualMs + extraMs;
    let delay = 0.05 + (meanMs === 0 ? 0 : dice.exponential(meanMs));
    if (!network.reorder || once) {
      delay = Math.max(delay, link.lastAt - now);
      link.lastAt = now + delay;
    }
    this.delivered += 1;
    if (once || duplicatePerMille === 0 || random.below(1000) >= duplicatePerMille) return [delay];
    this.duplicated += 1;
    return [delay, delay + random.below(network.lateMs + 1)];
  }

  #restore(key: number, link: Link): void {
    if (!link.cut) return;
    link.cut = false;
    this.onCut(Math.floor(key / 64), key % 64, false);
  }

  #link(from: number, to: number): Link {
    const key = keyOf(from, to);
    let link = this.#links.get(key);
    if (link === undefined) {
      const random = seededRandom(seedFor(this.#plan.seed, 6, from, to));
      link = { random, dice: new Dice(random), blocks: 0, cut: false, lastAt: 0 };
      this.#links.set(key, link);
    }
    return link;
  }
}

function keyOf(from: number, to: number): number {
  return from * 64 + to;
}
