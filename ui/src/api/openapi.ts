// The OpenAPI document of the service, read for people: operations by group, with their fields.

type Schema = any;

export interface Document {
  paths: Record<string, Record<string, any>>;
  components: { schemas: Record<string, Schema> };
}

export interface Field {
  name: string;
  /** body, query, path or header. */
  place: string;
  type: string;
  isRequired: boolean;
  description: string;
}

export interface Operation {
  method: string;
  path: string;
  sentence: string;
  fields: Field[];
  /** Status and sentence of each kind of reply. */
  replies: [string, string][];
  /** The least body that it takes; null for one without. */
  example: unknown;
}

export interface Group {
  name: string;
  operations: Operation[];
}

/** The operations by their tags, in the document's order. */
export function groupsOf(document: Document): Group[] {
  const groups = new Map<string, Operation[]>();
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, fields] of Object.entries(methods)) {
      const name = fields.tags?.[0] ?? "";
      groups.set(name, [...(groups.get(name) ?? []), operation(document, method.toUpperCase(), path, fields)]);
    }
  }
  return [...groups].map(([name, operations]) => ({ name, operations }));
}

function operation(document: Document, method: string, path: string, fields: any): Operation {
  const content = fields.requestBody?.content ?? {};
  const body = content["application/json"]?.schema ?? null;
  const parameters: Field[] = (fields.parameters ?? []).map((each: any) => ({
    name: each.name,
    place: each.in,
    type: typeOf(document, each.schema),
    isRequired: each.required ?? false,
    description: each.description ?? "",
  }));
  return {
    method,
    path,
    sentence: fields.description ?? fields.summary ?? "",
    fields: [...parameters, ...(body ? bodyFields(document, body) : [])],
    replies: Object.entries<any>(fields.responses ?? {}).map(([status, reply]) => [status, reply.description ?? ""]),
    example: body ? exampleOf(document, "", body) : null,
  };
}

function resolve(document: Document, schema: Schema): Schema {
  const name = schema?.$ref?.split("/").at(-1);
  return name ? (document.components.schemas[name] ?? {}) : (schema ?? {});
}

function bodyFields(document: Document, body: Schema): Field[] {
  const schema = resolve(document, body);
  const required: string[] = schema.required ?? [];
  const fields = Object.entries<Schema>(schema.properties ?? {}).map(([name, each]) => ({
    name,
    place: "body",
    type: typeOf(document, each),
    isRequired: required.includes(name),
    description: each.description ?? "",
  }));
  return fields.sort((a, b) => Number(b.isRequired) - Number(a.isRequired));
}

/** A type in a few words, such as `integer, 1 to 16` or `string | string[]`. */
function typeOf(document: Document, schema: Schema): string {
  const choices: Schema[] = schema?.anyOf ?? schema?.oneOf ?? [];
  if (choices.length) {
    const kinds = choices.filter((each) => each.type !== "null").map((each) => typeOf(document, each));
    return [...new Set(kinds)].join(" | ");
  }
  if (schema?.$ref) {
    const target = resolve(document, schema);
    return target.enum ? typeOf(document, target) : "object";
  }
  if (schema?.const !== undefined) return JSON.stringify(schema.const);
  if (schema?.enum) return schema.enum.map((each: unknown) => JSON.stringify(each)).join(" | ");
  if (schema?.type === "array") return `${typeOf(document, schema.items)}[]`;
  const [low, high] = [schema?.minimum, schema?.maximum];
  const isRange = low !== undefined && high !== undefined && Math.abs(high) < 1e15;
  return `${schema?.type ?? "any"}${isRange ? `, ${low} – ${high}` : ""}`;
}

const WORDS: Record<string, unknown> = {
  messages: [{ role: "user", content: "2+3=" }],
  prompt: "2+3=",
  input: "2+3=",
  max_tokens: 256,
  tokens: [1, 2, 3],
  text: ["Hello"],
  target_lang: "DE",
};

/** The least value that fits a schema. `model` is left to be filled in. */
function exampleOf(document: Document, name: string, part: Schema): unknown {
  if (name in WORDS) return WORDS[name];
  const schema = resolve(document, part);
  if (schema.default !== undefined && schema.default !== null) return schema.default;
  if (schema.anyOf) return exampleOf(document, name, schema.anyOf[0]);
  if (schema.enum) return schema.enum[0];
  if (schema.type === "object") {
    const required: string[] = schema.required ?? [];
    return Object.fromEntries(required.map((key) => [key, exampleOf(document, key, schema.properties?.[key] ?? {})]));
  }
  if (schema.type === "array") return [];
  if (schema.type === "integer" || schema.type === "number") return schema.minimum ?? 1;
  return schema.type === "boolean" ? false : "";
}
