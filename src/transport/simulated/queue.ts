/** The messages that are on their way, in the order of virtual time: a binary heap. */

export interface Delivery {
  readonly at: number;
  readonly order: number;
  readonly from: number;
  readonly to: number;
  readonly channel: number;
  /** Undefined if the sender has left. */
  readonly bytes: Uint8Array | undefined;
}

export class DeliveryQueue {
  readonly #items: Delivery[] = [];

  push(item: Delivery): void {
    const items = this.#items;
    let at = items.push(item) - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!isBefore(item, items[parent] as Delivery)) break;
      items[at] = items[parent] as Delivery;
      at = parent;
    }
    items[at] = item;
  }

  pop(): Delivery | undefined {
    const items = this.#items;
    const [first] = items;
    const last = items.pop();
    if (first === undefined || last === undefined || items.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      const [left, right] = [items[child] as Delivery, items[child + 1]];
      if (right !== undefined && isBefore(right, left)) child += 1;
      if (!isBefore(items[child] as Delivery, last)) break;
      items[at] = items[child] as Delivery;
      at = child;
    }
    items[at] = last;
    return first;
  }
}

function isBefore(a: Delivery, b: Delivery): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}
