// For a user's file anywhere on the disk: it can import `visplay/actor`, whether visplay is installed beside it or not,
// and it is an ES module, whether a package.json says so or not.
const root = new URL('../../', import.meta.url).href

export async function resolve(specifier, context, next) {
  if (specifier === 'visplay/actor') return next(new URL('../../actors/own/define.ts', import.meta.url).href, context)
  const found = await next(specifier, context)
  const { pathname, href } = new URL(found.url)
  const isUsers = !href.startsWith(root) && !href.includes('/node_modules/') && /\.[jt]s$/.test(pathname)
  return isUsers ? { ...found, format: 'module' } : found
}
