/** Icons of Lucide (ISC license), those that the page uses. */

export {
  Activity as activity, ArrowDownToLine as lower, ArrowUpToLine as raise, Brush as brush, Check as check,
  ChevronDown as chevronDown, ChevronLeft as previous, ChevronRight as next, CircleAlert as alert, CloudOff as offline,
  CloudCheck as saved, CloudUpload as saving, Copy as duplicate, Download as download, Eraser as eraser, Eye as show, EyeOff as hide,
  Combine as merge, Expand as grow, Shrink as shrink, Keyboard as keyboard, LayoutGrid as grid, Lock as lock,
  LockOpen as unlock, Maximize as fit, Menu as menu, Minus as minus, MousePointer2 as select, PaintBucket as fillHoles,
  Pentagon as polygon, Plus as plus, Redo2 as redo, Scissors as cut, Search as search, Settings as settings,
  SlidersHorizontal as adjust, Sparkles as everything, Spline as vertices, Split as split, SquareDashed as box,
  Tags as tags, Target as point, Trash2 as trash, Undo2 as undo, Upload as upload, WandSparkles as wand,
  Wind as specks, X as close, Archive as archive, RotateCcw as reset, ImagePlus as addImages, Hand as hand,
  ListFilter as filter,
} from "lucide";
