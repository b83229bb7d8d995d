/** Reads the few fields of S3's answers that are needed. They are flat, and have no attributes. */

const ENTITIES: Readonly<Record<string, string>> = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
};

/** The texts of all elements of a name, with their own elements as they are written. */
export function elements(xml: string, name: string): string[] {
  const pattern = new RegExp(`<${name}(?:\\s[^>]*)?>(.*?)</${name}>`, "gs");
  return [...xml.matchAll(pattern)].map(([, text = ""]) => text);
}

/** The text of the first element of a name. */
export function field(xml: string, name: string): string | undefined {
  const [text] = elements(xml, name);
  return text?.replace(/&(?:#(\d+)|#x([0-9a-f]+)|(\w+));/gi, (whole, decimal, hex, word) => {
    if (word !== undefined) return ENTITIES[word as string] ?? whole;
    const code = decimal === undefined ? Number.parseInt(hex as string, 16) : Number(decimal);
    return code <= 0x10ffff ? String.fromCodePoint(code) : whole;
  });
}
