export function feed(
  server: { agents: string; licence: string },
  options?: { minutes?: number; hostile?: boolean },
): Promise<{ count: number; sent: number }>;
