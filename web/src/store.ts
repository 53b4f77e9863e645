export interface StoreOptions {}
import type {Input} from './input.js';
export interface Store { open(url: string, o: object, open: () => Promise<Input>): Promise<Input>; }
export async function openStore(o: unknown): Promise<Store | null> { void o; return null; }
