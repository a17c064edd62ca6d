/** One pass for image, masks, the active mask and the preview. Masks lie column by column, so textures have x and y swapped. */

export const VERTEX_SHADER = `#version 300 es
uniform vec4 tileBox;      // of the image, in its pixels
uniform vec4 imageToClip;  // scale xy, offset xy
out vec2 imageXY;
void main() {
  vec2 corner = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
  imageXY = mix(tileBox.xy, tileBox.zw, corner);
  gl_Position = vec4(imageXY * imageToClip.xy + imageToClip.zw, 0.0, 1.0);
}`;

export const FRAGMENT_SHADER = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;
precision highp sampler2DArray;

uniform sampler2D image;
uniform usampler2D labelMap;
uniform sampler2D activeMask;
uniform sampler2D palette;
uniform sampler2DArray logits;

uniform vec4 tileBox;
uniform float zoom;            // pixels of the screen a pixel of the image
uniform float outlineWidth;    // pixels of the screen
uniform vec3 adjustment;       // brightness, contrast, gamma
uniform float opacity;
uniform bool outlineOnly;
uniform bool patterns;
uniform bool showLabelMap;
uniform vec4 activeColor;      // a 0: none
uniform float activePattern;
uniform vec4 previewColor;     // a 0: none
uniform float candidate;
uniform vec2 logitsScale;      // of the image to the frame of the logits
uniform float dim;

in vec2 imageXY;
out vec4 color;

ivec2 texel(vec2 at) {
  return clamp(ivec2(floor(at - tileBox.xy)), ivec2(0), ivec2(tileBox.zw - tileBox.xy) - 1).yx;
}

uint slotAt(vec2 at) { return texelFetch(labelMap, texel(at), 0).r; }
float activeAt(vec2 at) { return step(0.001, texelFetch(activeMask, texel(at), 0).r); }

// How much of the pattern's ink is at this place: another for each class, for those who do not tell its color.
float ink(float pattern) {
  vec2 at = gl_FragCoord.xy;
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

vec3 adjust(vec3 rgb) {
  rgb = (rgb - 0.5) * adjustment.y + 0.5 + adjustment.x;
  return pow(clamp(rgb, 0.0, 1.0), vec3(1.0 / adjustment.z));
}

vec3 fill(vec3 under, vec3 rgb, float amount, float pattern) {
  float inked = patterns ? ink(pattern) : 0.0;
  return mix(under, mix(rgb, rgb * 0.35, inked), min(1.0, amount + inked * 0.35));
}

vec3 drawLabelMap(vec3 under) {
  uint slot = slotAt(imageXY);
  if (slot == 0u) return under;
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
  vec3 rgb = fill(under, entry.rgb, amount, float(flags >> 4));
  if (!isEdge) return rgb;
  if (isSuggestion && !isHovered && fract((gl_FragCoord.x + gl_FragCoord.y) / 8.0) > 0.6) return rgb;
  return mix(rgb, isSelected || isHovered ? mix(entry.rgb, vec3(1.0), 0.55) : entry.rgb, 0.95);
}

vec3 drawActive(vec3 under) {
  float inside = activeAt(imageXY);
  float reach = outlineWidth * 1.3 / zoom;
  float around = activeAt(imageXY + vec2(reach, 0.0)) + activeAt(imageXY - vec2(reach, 0.0))
    + activeAt(imageXY + vec2(0.0, reach)) + activeAt(imageXY - vec2(0.0, reach));
  if (inside < 0.5) return around > 0.5 ? mix(under, vec3(0.0), 0.45) : under;
  vec3 rgb = fill(under, activeColor.rgb, outlineOnly ? 0.0 : activeColor.a, activePattern);
  return around < 3.5 ? mix(activeColor.rgb, vec3(1.0), 0.8) : rgb;
}

float logitAt(vec2 at) { return texture(logits, vec3(at * logitsScale, candidate)).r * 127.0; }

vec3 drawPreview(vec3 under) {
  float value = logitAt(imageXY);
  // Change per pixel of the screen; derivatives of the pipeline come in blocks of two by two pixels.
  float reach = max(1.0 / zoom, 0.5);
  vec2 gradient = vec2(
    logitAt(imageXY + vec2(reach, 0.0)) - logitAt(imageXY - vec2(reach, 0.0)),
    logitAt(imageXY + vec2(0.0, reach)) - logitAt(imageXY - vec2(0.0, reach))
  ) / (2.0 * reach * zoom);
  float slope = max(length(gradient), 1e-3);
  float inside = clamp(value / slope + 0.5, 0.0, 1.0);
  float edge = 1.0 - clamp(abs(value / slope) - outlineWidth * 0.7, 0.0, 1.0);
  vec3 rgb = mix(under, previewColor.rgb, inside * previewColor.a);
  return mix(rgb, mix(previewColor.rgb, vec3(1.0), 0.65), edge);
}

void main() {
  vec3 rgb = adjust(texture(image, (imageXY - tileBox.xy) / (tileBox.zw - tileBox.xy)).rgb);
  if (dim > 0.0) rgb = mix(rgb, vec3(dot(rgb, vec3(0.299, 0.587, 0.114))) * 0.5, dim);
  if (showLabelMap) rgb = drawLabelMap(rgb);
  if (activeColor.a > 0.0) rgb = drawActive(rgb);
  if (previewColor.a > 0.0) rgb = drawPreview(rgb);
  if (zoom >= 14.0) {
    vec2 grid = step(fract(imageXY), vec2(1.0 / zoom));
    rgb = mix(rgb, vec3(dot(rgb, vec3(0.333)) > 0.5 ? 0.0 : 1.0), max(grid.x, grid.y) * 0.14);
  }
  color = vec4(rgb, 1.0);
}`;
