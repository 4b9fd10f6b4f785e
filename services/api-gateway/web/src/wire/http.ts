/**
 * Calls to our own origin. Every refusal becomes a `Problem` (RFC 9457), whether the server said it, a proxy on the way
 * did, or nobody answered: a person is always told the same way. The session cookie travels by itself.
 */

export interface Problem {
  readonly title: string;
  readonly detail: string;
  /** HTTP status; 0 when there was no answer. */
  readonly status: number;
  readonly traceId: string | null;
}

export class Refused extends Error {
  readonly problem: Problem;
  /** Seconds after which the server wants to be asked again, or null. */
  readonly retryAfter: number | null;

  constructor(problem: Problem, retryAfter: number | null = null) {
    super(problem.title);
    this.problem = problem;
    this.retryAfter = retryAfter;
  }

  /** Whether the same call may succeed later without anybody changing anything. */
  get passing(): boolean {
    return [0, 408, 425, 429, 500, 502, 503, 504].includes(this.problem.status);
  }
}

const UNREACHABLE: Problem = {
  title: 'Flotilla does not answer',
  detail: 'The server could not be reached. Check that it is running and that you are online.',
  status: 0,
  traceId: null,
};

function wait(response: Response): number | null {
  const seconds = Number(response.headers.get('Retry-After') ?? 'none');
  return Number.isFinite(seconds) ? seconds : null;
}

export async function refusalOf(response: Response): Promise<Refused> {
  const isProblem = (response.headers.get('Content-Type') ?? '').startsWith('application/problem+json');
  const body = isProblem ? ((await response.json().catch(() => ({}))) as Record<string, unknown>) : {};
  const say = (name: string, otherwise: string): string =>
    typeof body[name] === 'string' && body[name] !== '' ? body[name] : otherwise;
  const problem: Problem = {
    title: say('title', 'The server refused this'),
    detail: say(
      'detail',
      `The server answered with status ${response.status} and gave no reason. Try again in a moment.`,
    ),
    status: response.status,
    traceId: say('trace_id', '') || null,
  };
  return new Refused(problem, wait(response));
}

/**
 * Fetch from our origin; resolves with a successful response only.
 *
 * @throws Refused for any other status, and when nobody answers. An abort by the caller rises as it is.
 */
export async function request(path: string, init: RequestInit = {}): Promise<Response> {
  const response = await fetch(path, { credentials: 'same-origin', cache: 'no-store', ...init }).catch(
    error => {
      if (init.signal?.aborted && init.signal.reason?.name !== 'TimeoutError') throw error;
      throw new Refused(UNREACHABLE);
    },
  );
  if (!response.ok) throw await refusalOf(response);
  return response;
}
