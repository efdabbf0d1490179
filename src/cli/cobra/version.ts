/** Of the etcd whose tools these behave like. A test holds it equal to the server's; it stands here so that a client need not load a server. */
export const ETCD_VERSION = "3.7.1";

export function versionText(tool: string): string {
  const [major, minor] = ETCD_VERSION.split(".");
  return `${tool} version: ${ETCD_VERSION}\nAPI version: ${major}.${minor}\n`;
}
