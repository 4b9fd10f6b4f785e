/** Which addresses of a model may become a link: absolute http, https and mailto, with the host in sight. Nothing loads. */

export interface SafeLink {
  readonly href: string;
  /** Where it leads, as a person should read it: punycode host, or mail address. */
  readonly place: string;
}

export function safeLink(address: string): SafeLink | null {
  if (!URL.canParse(address)) return null;
  const url = new URL(address);
  if (url.protocol === 'mailto:') return { href: url.href, place: url.pathname };
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
  return bare(label) === bare(link.href) || bare(label) === link.place;
}
