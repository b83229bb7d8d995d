/** The command line that goes on with a run: the one that was typed, and `--resume`. */
import { basename, relative } from "node:path";

/** In the place of a secret, for a shell. */
const TOKEN = "$LOCKSTEP_TOKEN";

/** For a POSIX shell. `argv` is as Node gives it: the program, the script, then the words. */
export function commandToResume(
  argv: readonly string[],
  env: Readonly<Record<string, string | undefined>>,
  cwd: string,
): string {
  const script = argv[1] ?? "lockstep";
  const typed = argv.slice(2);
  const words = typed.filter((word) => word !== "--resume" && word !== "--anew");
  const [program, rest] =
    throughNpm(words, env) ??
    (/\.[cm]?[jt]s$/.test(script)
      ? ["node", [relative(cwd, script) || script, ...words]]
      : [env["npm_command"] === "exec" ? `npx ${basename(script)}` : basename(script), words]);
  return [program, ...[...masked(rest), "--resume"].map(quote)].join(" ");
}

/** The same words with the run's secret left for the environment to tell: what is printed is kept in logs. */
function masked(words: readonly string[]): string[] {
  return words.map((word, index) => {
    if (words[index - 1] === "--token") return TOKEN;
    return word.startsWith("--token=") ? `--token=${TOKEN}` : word;
  });
}

/** `npm start -- …` or `npm run NAME -- …`, when the words begin with those of the script in package.json. */
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
  if (word.endsWith(TOKEN) && /^(?:--token=)?\$/.test(word))
    return word.replace(TOKEN, `"${TOKEN}"`);
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}
