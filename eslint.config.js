import tseslint from 'typescript-eslint'
import importX, { createNodeResolver } from 'eslint-plugin-import-x'

/** The one direction of imports: runners → actors → {bus, models}; bus and models do not know each other. */
const forbid = (files, targets) => ({
  files,
  rules: {
    'no-restricted-imports': [
      'error',
      {
        patterns: targets.map((t) => ({
          regex: `^(\\.\\./)+${t}/`,
          message: 'imports point one way: runners → actors → {bus, models}',
        })),
      },
    ],
  },
})

export default tseslint.config(
  { ignores: ['node_modules', 'runs', 'coverage', '.cache'] },
  {
    files: ['**/*.ts'],
    extends: [...tseslint.configs.strict],
    plugins: { 'import-x': importX },
    settings: { 'import-x/resolver-next': [createNodeResolver({ extensions: ['.ts', '.js', '.mjs'] })] },
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/no-explicit-any': 'error',
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/no-misused-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-non-null-assertion': 'off',
      'import-x/no-cycle': 'error',
    },
  },
  forbid(['bus/**'], ['models', 'actors', 'runners']),
  forbid(['models/**'], ['bus', 'actors', 'runners']),
  forbid(['actors/**'], ['runners']),
)
