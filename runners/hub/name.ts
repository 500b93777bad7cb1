/** Names of models on the Hugging Face hub: `owner/name`, or `owner/name@revision` for a branch, a tag or a commit. */
export interface HubName {
  /** `owner/name`. */
  readonly repo: string
  /** A branch, a tag or a commit. */
  readonly revision: string
}

const PATTERN = /^([A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*)(?:@([\w][\w./-]*))?$/

/** Null where the text cannot be such a name. Without a revision it is `main`. */
export function parseHubName(text: string): HubName | null {
  const [, repo, revision = 'main'] = PATTERN.exec(text) ?? []
  if (repo === undefined || /\.\.|--|\.git$/.test(repo) || revision.includes('..')) return null
  return { repo, revision }
}

/** A commit never changes; a branch or a tag may. */
export const isCommit = (revision: string): boolean => /^[0-9a-f]{40}$/.test(revision)
