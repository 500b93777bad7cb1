/** Errors in the form of OpenAI's API: `{"error": {"message", "type", "param", "code"}}`. */
export class ApiError extends Error {
  override name = 'ApiError'

  constructor(
    readonly status: 400 | 401 | 404 | 413 | 415 | 500 | 503,
    readonly code: string,
    message: string,
    /** The field of the request that is wrong. */
    readonly param: string | null = null,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }

  get body() {
    const type = this.status >= 500 ? 'server_error' : 'invalid_request_error'
    return { error: { message: this.message, type, param: this.param, code: this.code } }
  }
}

/** A request that cannot be served as it is. */
export const invalid = (param: string, message: string, code = 'invalid_value'): ApiError =>
  new ApiError(400, code, message, param)

/** What a client is told of any error. */
export const asApiError = (error: unknown): ApiError =>
  error instanceof ApiError
    ? error
    : new ApiError(500, 'server_error', error instanceof Error ? error.message : String(error), null, { cause: error })
