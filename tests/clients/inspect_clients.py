"""Inspects what openapi-generator makes of the API document in C#, Java, Go, Kotlin and Swift, and compiles Go and Java.

Usage: inspect_clients.py PYTHON_WITH_THE_GENERATOR FOLDER DOCUMENT

Found are, by language:
- optional members that may be null, which typed clients then send as null, or which have two ways to say nothing. Kotlin and
  Swift have one type for both, in which nothing can be found;
- methods that are not the document's operations, by name and place: generated twice, with a suffix, or with their tag in front;
- types that are not the document's schemas: `InlineObject`, `UserPageItemsInner`;
- methods that return anything, and members that are anything: `object`, `Any`, `map[string]interface{}`.

The same rules first have to find the faults of PLANTED. Compiled is what needs nothing but the compiler and, in Java, libraries
that are in the generator's own archive; where `go` or `javac` is not installed, that language is only read.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Iterator

# Members that are anything, because they are.
EXCEPTIONS = {
    "AuditEvent.data": "each type of event has its own schema",
    "CloudEvent.data": "each type of event has its own schema, which `dataschema` names",
    "PersonalData.readmodels": "each read model has its own tables",
    "PersonalEvent.data": "each type of event has its own schema",
    "Ready.checks": "which components there are depends on the configuration",
}

PAGE = {"$ref": "#/components/schemas/ThingPage"}
OWNER = {"$ref": "#/components/schemas/Owner"}
INLINE = {"type": "object", "properties": {"id": {"type": "string"}}}
ITEM = {"type": "object", "properties": {"name": {"type": "string"}}}


def answers(schema: dict) -> dict:
    return {"200": {"description": "It.", "content": {"application/json": {"schema": schema}}}}


# A document with each fault, and what has to be found in it: the rule, where, and in which languages.
PLANTED = {
    "openapi": "3.1.0",
    "info": {"title": "Faults", "version": "1", "license": {"name": "MIT", "identifier": "MIT"}},
    "servers": [{"url": "http://127.0.0.1:8080"}],
    "paths": {
        "/things": {
            "get": {"operationId": "thingsList", "tags": ["things"], "responses": answers(PAGE)},
            "post": {"operationId": "createThing", "tags": ["things"], "responses": answers(INLINE)},
        },
        "/owner": {"get": {"operationId": "getOwner", "tags": ["owners", "things"], "responses": answers(OWNER)}},
        "/anything": {"get": {"operationId": "getAnything", "tags": ["things"], "responses": answers({"type": "object"})}},
    },
    "components": {
        "schemas": {
            "Thing": {
                "type": "object",
                "required": ["null_id", "anything", "constant"],
                "properties": {
                    "null_id": {"type": ["string", "null"]},
                    "optional": {"type": "string"},
                    "null_text": {"type": ["string", "null"]},
                    "null_owner": {"oneOf": [{"type": "null"}, OWNER]},
                    "anything": {"type": "object"},
                    "constant": {"const": "1.0"},
                },
            },
            "NewThing": {"type": "object", "properties": {"id": {"type": "string"}}},
            "Owner": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}},
            "ThingPage": {"type": "object", "required": ["items"], "properties": {"items": {"type": "array", "items": ITEM}}},
        }
    },
}
ALL = {"csharp", "java", "go", "kotlin", "swift6"}
EXPECTED = [
    ("nullable", "Thing.nulltext", {"csharp", "java", "go"}),
    ("nullable", "Thing.nullowner", {"csharp", "java", "go"}),
    ("operation", "things.thingsList begins with its tag", ALL),
    ("operation", "things.getOwner belongs to owners", ALL - {"csharp"}),
    ("operation", "things.thingsApiGetOwner is not in the document", {"csharp"}),
    ("type", "CreateThing200Response", ALL),
    ("type", "ThingPageItemsInner", ALL),
    ("untyped", "Thing.anything", ALL),
    ("untyped", "Thing.constant", ALL),
    ("untyped", "things.getAnything", ALL),
]


@dataclass
class Language:
    """Where a generator writes, and how to read it."""

    generator: str
    models: str
    apis: str
    # The type of a file; if not given, the file's name.
    type: str | None
    # Methods: their names and, in the group `returns`, types.
    method: str
    # Members that are anything.
    untyped: str
    # The names of types that are anything.
    anything: str
    nullable: Callable[[str], Iterator[str]] = lambda text: iter(())
    options: tuple[tuple[str, str], ...] = ()


def members(pattern: str) -> Callable[[str], Iterator[str]]:
    return lambda text: (found[1] for found in re.finditer(pattern, text, re.MULTILINE))


def nullable_in_csharp(text: str) -> Iterator[str]:
    """One that is optional, and written as null."""
    for option in re.findall(r"public Option<.+> (\w+)Option \{", text):
        write = rf"if \(\w+\.{option}Option\.Value != null\)(?:(?!Option\.IsSet).)*?else\s+writer\.WriteNull\("
        if re.search(write, text, re.DOTALL):
            yield option


LANGUAGES = [
    Language(
        "csharp",
        models="src/*/Model/*.cs",
        apis="src/*/Api/*Api.cs",
        type=None,
        method=r"public interface I(?P<name>\w+)ApiResponse : (?:.*?I(?:Ok|Created|Accepted)<(?P<returns>[^?>]+))?",
        untyped=r"public (?:\w+<.*)?[oO]bject\b.* (\w+) \{ get",
        anything=r"[oO]bject",
        nullable=nullable_in_csharp,
    ),
    Language(
        "java",
        models="src/main/java/**/model/*.java",
        apis="src/main/java/**/api/*Api.java",
        type=None,
        method=r"^  public (?P<returns>\S.*?) (?P<name>\w+(?<!WithHttpInfo))\((?!HttpResponse|.*> headers\)).*\) throws",
        untyped=r"^  private (?:\w+<.*)?Object\b\S* (\w+)(?: =.*)?;",
        anything=r"Object|Map<String, Object>",
        nullable=members(r"^  private JsonNullable<.*> (\w+) ="),
        options=(("library", "native"),),
    ),
    Language(
        "go",
        models="model_*.go",
        apis="api_*.go",
        type=r"^type ([A-Z]\w*) (?:struct \{|string|int\d*)$",
        method=r"^func \(a \*\w+Service\) (?P<name>\w+)Execute\(.*?\) \((?:(?P<returns>\S+), )?\*http\.Response, error\)",
        untyped=r"^\t(\w+) (?:\[\]|\*)*(?:interface\{\}|any|map\[string\](?:interface\{\}|any))",
        anything=r"\*?(?:interface\{\}|any|map\[string\](?:interface\{\}|any))",
        nullable=members(r"^\t(\w+) Nullable\w+ `json:\"\w+,omitempty\"`"),
    ),
    Language(
        "kotlin",
        models="src/main/kotlin/**/models/*.kt",
        apis="src/main/kotlin/**/apis/*Api.kt",
        type=None,
        method=r"^    fun (?P<name>\w+(?<!WithHttpInfo)(?<!RequestConfig))\(.*\) : (?P<returns>.+) \{",
        untyped=r"^    va[lr] `?(\w+)`?: .*kotlin\.Any\b",
        anything=r"kotlin\.Any|kotlin\.collections\.Map<kotlin\.String, kotlin\.Any>",
    ),
    Language(
        "swift6",
        models="Sources/*/Models/*.swift",
        apis="Sources/*/APIs/*API.swift",
        type=None,
        method=r"^    open class func (?P<name>\w+)\(.*\) async throws\(ErrorResponse\)(?: -> (?P<returns>.+))? \{",
        untyped=r"^    public var (\w+): .*(?:JSONValue|AnyCodable|\bAny\b)",
        anything=r"JSONValue|AnyCodable|Any|\[String: (?:JSONValue|AnyCodable|Any)\]",
    ),
]
# As docs/go.md and docs/java.md advise, and so that Java needs nothing but Jackson.
ADVISED = {
    "go": {"packageName": "watchword", "disallowAdditionalPropertiesIfNotPresent": "false", "enumUnknownDefaultCase": "true"},
    "java": {"library": "native", "openApiNullable": "false", "enumUnknownDefaultCase": "true"},
}
# Of the generator, in every program.
OWN_TYPES = {"AbstractOpenApiSchema"}


def generate(python: str, work: Path, documents: dict[str, dict]) -> None:
    """All languages of all documents, in one process; those that are compiled also as we advise."""
    configurations = []
    for name, document in documents.items():
        path = work / f"{name}.json"
        path.write_text(json.dumps(document))
        wanted = [(language.generator, language.generator, dict(language.options)) for language in LANGUAGES]
        if name == "document":
            wanted += [(f"{generator}-advised", generator, options) for generator, options in ADVISED.items()]
        for folder, generator, options in wanted:
            output = work / name / folder
            shutil.rmtree(output, ignore_errors=True)
            configuration = work / f"{name}-{folder}.config.json"
            silent = dict.fromkeys(["apiDocs", "modelDocs", "apiTests", "modelTests"], "false")
            written = {"generatorName": generator, "inputSpec": str(path), "outputDir": str(output)}
            configuration.write_text(json.dumps(written | {"additionalProperties": options, "globalProperties": silent}))
            configurations.append(str(configuration))
    run = [Path(python).absolute().parent / "openapi-generator-cli", "batch", "--fail-fast", "--threads", "2", *configurations]
    made = subprocess.run(run, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode != 0 or f"{len(configurations)} generators successfully" not in made.stdout:
        sys.exit(f"{made.stdout}\nopenapi-generator failed")


def words(name: str) -> list[str]:
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", name)]


def operations_of(document: dict) -> dict[str, str]:
    """Operation ids, with the tag that they are generated for."""
    items = (operation for item in document["paths"].values() for operation in item.values())
    return {operation["operationId"]: operation["tags"][0] for operation in items}


def inspect(language: Language, folder: Path, document: dict) -> tuple[set[tuple[str, str]], set[str]]:
    """The findings, and the names of types and operations that were read."""
    findings, read = set(), set()
    schemas = document["components"]["schemas"]
    for file in sorted(folder.glob(language.models)):
        text = file.read_text()
        kind = file.stem
        if language.type:
            # A schema of anything has no type of its own.
            found = re.search(language.type, text, re.MULTILINE)
            if not found:
                continue
            kind = found[1]
        if kind in OWN_TYPES:
            continue
        read.add(kind)
        if kind not in schemas:
            findings.add(("type", kind))
        findings |= {("nullable", f"{kind}.{member.lower()}") for member in language.nullable(text)}
        findings |= {("untyped", f"{kind}.{member.lower()}") for member in members(language.untyped)(text)}
    ids = operations_of(document)
    for file in sorted(folder.glob(language.apis)):
        tag = [word for word in words(file.stem) if word != "api"]
        for method in re.finditer(language.method, file.read_text(), re.MULTILINE):
            name = method["name"][0].lower() + method["name"][1:]
            place = f"{'_'.join(tag)}.{name}"
            read.add(name)
            own = ids.get(name)
            if own is None:
                findings.add(("operation", f"{place} is not in the document"))
            elif words(own) != tag:
                findings.add(("operation", f"{place} belongs to {own}"))
            elif words(name)[: len(tag)] == tag:
                findings.add(("operation", f"{place} begins with its tag"))
            if re.fullmatch(language.anything, method["returns"] or ""):
                findings.add(("untyped", place))
    return findings, read


def inspect_all(work: Path, name: str, document: dict) -> dict[str, set[tuple[str, str]]]:
    """The findings by language. Fails if something of the document was not read: then the rules looked at nothing."""
    schemas = document["components"]["schemas"].items()
    wanted = set(operations_of(document)) | {it for it, schema in schemas if "properties" in schema or "enum" in schema}
    found = {}
    for language in LANGUAGES:
        findings, read = inspect(language, work / name / language.generator, document)
        if missing := wanted - read:
            sys.exit(f"{language.generator}: not found in the generated client: {sorted(missing)}")
        found[language.generator] = findings
    return found


def compiled(folder: Path, command: list, environment: dict[str, str]) -> str | None:
    """What the compiler says against it."""
    made = subprocess.run(
        command, cwd=folder, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return None if made.returncode == 0 else made.stdout


def compile_go(work: Path, folder: Path) -> str | None:
    # Nothing but the standard library: there is nowhere to get more from.
    environment = {"GOPROXY": "off", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOWORK": "off", "CGO_ENABLED": "0"}
    environment["GOCACHE"] = str(work / "go-cache")
    module = folder / "go.mod"
    # It asks for a newer version than Debian's, without need.
    module.write_text(re.sub(r"^go .*$", "go 1.18", module.read_text(), flags=re.MULTILINE))
    return compiled(folder, ["go", "build", "./..."], environment)


def compile_java(python: str, work: Path) -> str | None:
    packages = Path(python).absolute().parent.parent.glob("lib/python3*/site-packages")
    archive = next(packages) / "openapi_generator_cli" / "openapi-generator.jar"
    folder = work / "document" / "java-advised"
    sources = sorted((folder / "src" / "main").rglob("*.java"))
    for source in sources:
        # The one that comes with the compiler; the other is in an archive of its own.
        source.write_text(source.read_text().replace("@javax.annotation.Generated(", "@javax.annotation.processing.Generated("))
    options = ["-nowarn", "-proc:none", "-encoding", "UTF-8", "-d", str(work / "classes"), "-cp", str(archive)]
    return compiled(folder, ["javac", *options, *sources], {})


def main() -> None:
    python, folder, path = sys.argv[1:]
    work = Path(folder).resolve()
    shutil.rmtree(work / "classes", ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    document = json.loads(Path(path).read_text())
    generate(python, work, {"planted": PLANTED, "document": document})

    faults, used = [], set()
    for language, findings in inspect_all(work, "planted", PLANTED).items():
        expected = {(rule, what) for rule, what, languages in EXPECTED if language in languages}
        faults += [f"{language}: planted and not found: {rule}: {what}" for rule, what in sorted(expected - findings)]
        faults += [f"{language}: found and not planted: {rule}: {what}" for rule, what in sorted(findings - expected)]
    for language, findings in inspect_all(work, "document", document).items():
        for rule, what in sorted(findings):
            if rule == "untyped" and what in EXCEPTIONS:
                used.add(what)
            else:
                faults.append(f"{language}: {rule}: {what}")
    faults += [f"no longer needed as an exception: {what}" for what in EXCEPTIONS if what not in used]
    if faults:
        sys.exit("\n".join(faults))
    print("C#, Java, Go, Kotlin and Swift: every operation and schema under its own name, with types")

    if shutil.which("go"):
        if "NewThing redeclared" not in (compile_go(work, work / "planted" / "go") or ""):
            sys.exit("the planted client compiles in Go")
        for name in ["go", "go-advised"]:
            if fault := compile_go(work, work / "document" / name):
                sys.exit(f"{fault}\nthe Go client does not compile")
        print("Go: compiles, with its standard library alone")
    else:
        print("Go: not compiled, there is no `go` here")
    if shutil.which("javac"):
        if fault := compile_java(python, work):
            sys.exit(f"{fault}\nthe Java client does not compile")
        print("Java: compiles")
    else:
        print("Java: not compiled, there is no `javac` here")


main()
