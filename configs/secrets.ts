/** The address of a user's own NATS server may hold a password or a token: what is shown or kept for others must not. */
export const withoutSecrets = (text: string): string => text.replaceAll(/:\/\/[^/\s"'@]*@/g, '://…@')
