/** x float [M, size] to y of the same shape. */
export function chain(options: {
    layers: number; size: number; bits?: number; block?: number; half?: boolean; accuracy: number; shared?: boolean;
}): Uint8Array<ArrayBuffer>;
