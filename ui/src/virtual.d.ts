declare module "virtual:words" {
  type Words = Record<string, string>;
  type Areas = Record<string, () => Promise<{ default: Words }>>;
  const catalogues: Record<"en" | "de" | "fr" | "zh", Areas>;
  export default catalogues;
}
