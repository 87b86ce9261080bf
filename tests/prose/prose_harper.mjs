// Has Harper read paragraphs: from standard input, as JSON, and its findings to standard output.
import { pathToFileURL } from "node:url";

const [, , folder] = process.argv;
const at = (name) => pathToFileURL(`${folder}/dist/${name}.js`).href;
const { Dialect, LocalLinter } = await import(at("index"));
const { binaryInlined } = await import(at("binaryInlined"));

let text = "";
for await (const chunk of process.stdin.setEncoding("utf8")) text += chunk;
const { paragraphs, words, off } = JSON.parse(text);

const linter = new LocalLinter({ binary: binaryInlined, dialect: Dialect.British });
const config = await linter.getDefaultLintConfig();
const unknown = off.filter((rule) => !(rule in config));
if (unknown.length) throw new Error(`Harper has no rules ${unknown}`);
for (const rule of off) config[rule] = false;
await linter.setLintConfig(config);
await linter.importWords(words);

const findings = [];
for (const [index, paragraph] of paragraphs.entries()) {
  // The rules' names are asked for where there is something: they take longer than the findings.
  if (!(await linter.lint(paragraph, { language: "markdown" })).length) continue;
  const groups = await linter.organizedLints(paragraph, { language: "markdown" });
  for (const [rule, lints] of Object.entries(groups)) {
    for (const lint of lints) {
      findings.push({
        paragraph: index,
        rule,
        start: lint.span().start,
        end: lint.span().end,
        message: lint.message(),
        instead: lint.suggestions().map((each) => each.get_replacement_text()),
      });
    }
  }
}
console.log(JSON.stringify(findings));
