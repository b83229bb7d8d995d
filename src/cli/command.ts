/**
 * The command line that resumes a run: the one that was typed, without its token, and with
 * `--resume`.
 */
import { basename, relative } from "node:path";

/**
 * Quotes the words for a POSIX shell. `argv` is as Node gives it: the program, the script, then the
 * words.
 */
export function commandToResume(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  cwd: string,
): string {
  const script = argv[1] ?? "lockstep";
  const typed = argv.slice(2);
  const bare = withoutToken(typed);
  const words = bare.filter((word) => word !== "--resume" && word !== "--anew");
  const [program, rest] =
    throughNpm(words, env) ??
    (/\.[cm]?[jt]s$/.test(script)
      ? ["node", [relative(cwd, script) || script, ...words]]
      : [env["npm_command"] === "exec" ? `npx ${basename(script)}` : basename(script), words]);
  // The command `lockstep resume` is its own.
  const all = typed[0] === "resume" ? rest : [...rest, "--resume"];
  const secret = bare.length < typed.length ? ["LOCKSTEP_TOKEN=…"] : [];
  return [...secret, program, ...all.map(quote)].join(" ");
}

/** Removes the token: a secret must not appear on a terminal or in its log. */
function withoutToken(words: readonly string[]): string[] {
  return words.filter(
    (word, index) =>
      word !== "--token" && !word.startsWith("--token=") && words[index - 1] !== "--token",
  );
}

/**
 * The command as `npm start -- …` or `npm run NAME -- …`, if its words begin with those of the
 * script in package.json.
 */
function throughNpm(
  words: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
): [string, readonly string[]] | undefined {
  const { npm_lifecycle_event: name, npm_lifecycle_script: script } = env;
  if (name === undefined || script === undefined || env["npm_command"] === "exec") return undefined;
  for (let count = words.length; count > 0; count--) {
    if (!script.endsWith(` ${words.slice(0, count).join(" ")}`)) continue;
    return [name === "start" ? "npm start --" : `npm run ${name} --`, words.slice(count)];
  }
  return undefined;
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
