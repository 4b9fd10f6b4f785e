/** Which addresses of a model may become a link: absolute http, https and mailto, with the host in sight. Nothing loads. */

export interface SafeLink {
  readonly href: string;
  /** Where it leads, as a person should read it: punycode host, or all mail addresses. */
  readonly place: string;
}

/** One mail address; a comma, a semicolon or a bracket would be a second one to some mail programs. */
const MAIL_ADDRESS = /^[^\s,;:<>()[\]"\\@\p{C}]+@[^\s,;:<>()[\]"\\@\p{C}]+$/u;
const RECIPIENTS = ['to', 'cc', 'bcc'];
/** Every other field is left out: some mail programs attach files of this machine by one. */
const FIELDS = [...RECIPIENTS, 'subject', 'body'];

/** A link to write a mail (RFC 6068) that names each recipient; none where a recipient could hide another one. */
function mailLink(url: URL): SafeLink | null {
  const fields: (readonly [string, string])[] = [];
  const pairs = url.search.slice(1).split('&');
  try {
    for (const [name, value] of [['to', url.pathname] as const, ...pairs.map(fieldOf)]) {
      const parts = RECIPIENTS.includes(name) ? value.split(',') : [value];
      fields.push(...parts.map(part => [name, decodeURIComponent(part).trim()] as const));
    }
  } catch {
    return null; // an escape that is none
  }
  const kept = fields.filter(([name, value]) => value !== '' && FIELDS.includes(name));
  const recipients = kept.filter(([name]) => RECIPIENTS.includes(name));
  if (recipients.length === 0 || !recipients.every(([, address]) => MAIL_ADDRESS.test(address))) return null;
  const to = recipients.filter(([name]) => name === 'to').map(([, address]) => encodeURIComponent(address));
  const rest = kept.filter(([name]) => name !== 'to');
  const query = rest.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join('&');
  const place = recipients
    .map(([name, address]) => (name === 'to' ? address : `${name} ${address}`))
    .join(', ');
  return { href: `mailto:${to.join(',').replaceAll('%40', '@')}${query && `?${query}`}`, place };
}

function fieldOf(pair: string): readonly [string, string] {
  const at = pair.indexOf('=');
  return [
    decodeURIComponent(at < 0 ? pair : pair.slice(0, at)).toLowerCase(),
    at < 0 ? '' : pair.slice(at + 1),
  ];
}

export function safeLink(address: string): SafeLink | null {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  if (url.protocol === 'mailto:') return mailLink(url);
  const web = url.protocol === 'http:' || url.protocol === 'https:';
  // A name before the host (https://bank.example@evil.example) only ever serves to mislead.
  if (!web || url.host === '' || url.username !== '' || url.password !== '') return null;
  return { href: url.href, place: url.host };
}

/** Whether a label already says where the link leads, so that the host need not be repeated. */
export function saysPlace(label: string, link: SafeLink): boolean {
  const bare = (text: string): string =>
    text
      .trim()
      .replace(/^(https?:\/\/|mailto:)/i, '')
      .replace(/\/$/, '');
  if (bare(label) === link.place) return true;
  return !link.href.startsWith('mailto:') && bare(label) === bare(link.href);
}
