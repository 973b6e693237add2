// Values of attributes in words, as text.

const number = new Intl.NumberFormat("en-GB", { maximumFractionDigits: 6 });
const day = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeZone: "UTC" });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

/** The name of an attribute for people: "year_built" -> "Year built". */
export function label(name) {
  const words = name.replaceAll("_", " ").trim();
  return words[0].toUpperCase() + words.slice(1);
}

const isCode = (currency) => /^[A-Z]{3}$/.test(currency ?? "");

export function money(amount, currency) {
  if (!isCode(currency)) return number.format(amount);
  return new Intl.NumberFormat("en-GB", { style: "currency", currency, trailingZeroDisplay: "stripIfInteger" }).format(amount);
}

/** How a currency is written: "£"; its code where it has no sign. */
export function currencySign(currency) {
  if (!isCode(currency)) return currency;
  const parts = new Intl.NumberFormat("en-GB", { style: "currency", currency }).formatToParts(0);
  return parts.find((part) => part.type === "currency").value;
}

/** A value of an answer, of an attribute of that type. */
export function worded(type, value) {
  if (type === "price") return money(value.amount, value.currency);
  if (type === "number") return number.format(value);
  if (type === "boolean") return value ? "yes" : "no";
  if (type === "time") return (value.length > 10 ? moment : day).format(new Date(value));
  return typeof value === "object" ? JSON.stringify(value) : String(value); // of a type that only a newer service knows
}
