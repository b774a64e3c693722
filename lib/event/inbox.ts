// Where a tenant's producers hear their answers on NATS.
//
// Promises: no two tenants share an inbox, and none shares one with the services: a tenant's name has no upper-case letters
// and no dots. Permissions cannot tell one client's `_INBOX.>` from another's, so that one is the installation's own tenant's.

/** Replies to the services themselves: no tenant's prefix is in upper case. */
export const INBOX_PREFIX = "_INBOX_RELOG";
/** What NATS clients use unless told otherwise. */
const COMMON_PREFIX = "_INBOX";

/** The inbox prefixes of a tenant, its own first. @param home the installation's own tenant */
export function inboxesOf(tenant: string, home: string): readonly string[] {
  return [`_INBOX_${tenant}`, ...(tenant === home ? [COMMON_PREFIX] : [])];
}

/** Whether a reply to this subject is heard by the tenant alone. */
export function isOwnReply(reply: string, tenant: string, home: string): boolean {
  return inboxesOf(tenant, home).some((prefix) => reply.startsWith(`${prefix}.`) && reply.length > prefix.length + 1);
}
