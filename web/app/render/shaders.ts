/**
 * Three passes: the scene (image and label map), then the active mask and the preview above it.
 *
 * Masks lie column by column, so their textures have x and y swapped.
 */

export const VERTEX_SHADER = `#version 300 es
uniform vec4 tileBox;      // of the image, in its pixels
uniform vec4 imageToClip;  // scale xy, offset xy
out vec2 imageXY;
void main() {
  vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
  imageXY = mix(tileBox.xy, tileBox.zw, corner);
  gl_Position = vec4(imageXY * imageToClip.xy + imageToClip.zw, 0.0, 1.0);
}`;

/** Corners of the whole target. */
export const CORNERS_SHADER = `#version 300 es
void main() {
  gl_Position = vec4(float(gl_VertexID & 1) * 2.0 - 1.0, float(gl_VertexID >> 1) * 2.0 - 1.0, 0.0, 1.0);
}`;

export const COPY_SHADER = `#version 300 es
precision mediump float;
uniform sampler2D scene;
out vec4 color;
void main() {
  color = vec4(texelFetch(scene, ivec2(gl_FragCoord.xy), 0).rgb, 1.0);
}`;

const COMMON = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
precision highp sampler2DArray;

uniform vec4 tileBox;
uniform float zoom;            // pixels of the screen a pixel of the image
uniform float outlineWidth;    // pixels of the screen
uniform float opacity;
uniform bool outlineOnly;
uniform bool patterns;
uniform vec2 origin;           // of the image on the screen: patterns move with it

in vec2 imageXY;
out vec4 color;

ivec2 texel(vec2 at) {
  return clamp(ivec2(floor(at - tileBox.xy)), ivec2(0), ivec2(tileBox.zw - tileBox.xy) - 1).yx;
}

// How much of the pattern's ink is at this place: another for each class, for those who do not tell its color.
float ink(float pattern) {
  vec2 at = gl_FragCoord.xy - origin + 5720.0;
  int kind = int(pattern);
  if (kind == 1) return step(0.72, fract((at.x + at.y) / 11.0));
  if (kind == 2) return step(0.72, fract((at.x - at.y) / 11.0));
  if (kind == 3) return step(length(fract(at / 10.0) - 0.5), 0.2);
  if (kind == 4) return step(0.75, fract(at.y / 9.0));
  if (kind == 5) return step(0.75, fract(at.x / 9.0));
  if (kind == 6) return max(step(0.8, fract(at.x / 11.0)), step(0.8, fract(at.y / 11.0)));
  if (kind == 7) return max(step(0.8, fract((at.x + at.y) / 13.0)), step(0.8, fract((at.x - at.y) / 13.0)));
  return 0.0;
}

// Color and opacity of the inside of a mask.
vec4 fill(vec3 rgb, float amount, float pattern) {
  float inked = patterns ? ink(pattern) : 0.0;
  return vec4(mix(rgb, rgb * 0.35, inked), min(1.0, amount + inked * 0.35));
}`;

export const SCENE_SHADER = `${COMMON}
uniform sampler2D image;
uniform usampler2D labelMap;
uniform sampler2D palette;
uniform bool isAdjusted;
uniform vec3 adjustment;       // brightness, contrast, gamma
uniform bool showLabelMap;
uniform float dim;

uint slotAt(vec2 at) { return texelFetch(labelMap, texel(at), 0).r; }

vec3 adjust(vec3 rgb) {
  rgb = (rgb - 0.5) * adjustment.y + 0.5 + adjustment.x;
  return pow(clamp(rgb, 0.0, 1.0), vec3(1.0 / adjustment.z));
}

vec3 drawLabelMap(vec3 under, uint slot) {
  vec4 entry = texelFetch(palette, ivec2(int(slot & 255u), int(slot >> 8)), 0);
  int flags = int(entry.a * 255.0 + 0.5);
  bool isSelected = (flags & 1) != 0;
  bool isHovered = (flags & 2) != 0;
  bool isSuggestion = (flags & 4) != 0;
  float reach = (isSelected || isHovered ? outlineWidth * 1.6 : outlineWidth) / zoom;
  bool isEdge = slotAt(imageXY + vec2(reach, 0.0)) != slot || slotAt(imageXY - vec2(reach, 0.0)) != slot
    || slotAt(imageXY + vec2(0.0, reach)) != slot || slotAt(imageXY - vec2(0.0, reach)) != slot;
  float amount = outlineOnly ? 0.0 : opacity;
  if (isSuggestion) amount = isHovered ? 0.5 : 0.16;
  else if (isSelected || isHovered) amount = max(amount + 0.12, 0.2);
  vec4 inside = fill(entry.rgb, amount, float(flags >> 4));
  vec3 rgb = mix(under, inside.rgb, inside.a);
  if (!isEdge) return rgb;
  vec2 at = gl_FragCoord.xy - origin;
  if (isSuggestion && !isHovered && fract((at.x + at.y) / 8.0) > 0.6) return rgb;
  return mix(rgb, isSelected || isHovered ? mix(entry.rgb, vec3(1.0), 0.55) : entry.rgb, 0.95);
}

void main() {
  vec3 rgb = texture(image, (imageXY - tileBox.xy) / (tileBox.zw - tileBox.xy)).rgb;
  if (isAdjusted) rgb = adjust(rgb);
  if (dim > 0.0) rgb = mix(rgb, vec3(dot(rgb, vec3(0.299, 0.587, 0.114))) * 0.5, dim);
  if (showLabelMap) {
    uint slot = slotAt(imageXY);
    if (slot != 0u) rgb = drawLabelMap(rgb, slot);
  }
  if (zoom >= 14.0) {
    vec2 grid = step(fract(imageXY), vec2(1.0 / zoom));
    rgb = mix(rgb, vec3(dot(rgb, vec3(0.333)) > 0.5 ? 0.0 : 1.0), max(grid.x, grid.y) * 0.14);
  }
  color = vec4(rgb, 1.0);
}`;

export const ACTIVE_SHADER = `${COMMON}
uniform sampler2D activeMask;
uniform vec3 markColor;
uniform float pattern;

float activeAt(vec2 at) { return step(0.001, texelFetch(activeMask, texel(at), 0).r); }

void main() {
  float inside = activeAt(imageXY);
  float reach = outlineWidth * 1.3 / zoom;
  float around = activeAt(imageXY + vec2(reach, 0.0)) + activeAt(imageXY - vec2(reach, 0.0))
    + activeAt(imageXY + vec2(0.0, reach)) + activeAt(imageXY - vec2(0.0, reach));
  if (inside < 0.5) {
    if (around < 0.5) discard;
    color = vec4(0.0, 0.0, 0.0, 0.45);
  } else if (around < 3.5) color = vec4(mix(markColor, vec3(1.0), 0.8), 1.0);
  else color = fill(markColor, outlineOnly ? 0.0 : max(0.08, opacity), pattern);
}`;

export const PREVIEW_SHADER = `${COMMON}
uniform sampler2DArray logits;
uniform vec3 markColor;
uniform float candidate;
uniform vec2 logitsScale;      // of the image to the frame of the logits

float logitAt(vec2 at) { return texture(logits, vec3(at * logitsScale, candidate)).r * 127.0; }

void main() {
  float value = logitAt(imageXY);
  // Change per pixel of the screen; derivatives of the pipeline come in blocks of two by two pixels.
  float reach = max(1.0 / zoom, 0.5);
  vec2 gradient = vec2(
    logitAt(imageXY + vec2(reach, 0.0)) - logitAt(imageXY - vec2(reach, 0.0)),
    logitAt(imageXY + vec2(0.0, reach)) - logitAt(imageXY - vec2(0.0, reach))
  ) / (2.0 * reach * zoom);
  float away = value / max(length(gradient), 1e-3);
  float inside = clamp(away + 0.5, 0.0, 1.0) * (outlineOnly ? 0.02 : 0.5);
  float edge = 1.0 - clamp(abs(away) - outlineWidth * 0.7, 0.0, 1.0);
  if (max(inside, edge) <= 0.0) discard;
  // The outline above the inside, as one layer.
  float alpha = edge + inside * (1.0 - edge);
  color = vec4((mix(markColor, vec3(1.0), 0.65) * edge + markColor * inside * (1.0 - edge)) / alpha, alpha);
}`;
