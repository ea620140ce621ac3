// Grafana's types for what a file of its holds. Panels have options that depend on their kind; the general type leaves
// these open, so here each kind that the dashboards use is tied to its own.
import type { AnnotationQuery, Dashboard, DataQuery, FieldConfigSource, GraphFieldConfig, Panel, RowPanel } from '@grafana/schema';
import type { Options as BarGauge } from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type { Options as Heatmap } from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type { Options as StateTimeline } from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type { Options as Stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type { Options as Table } from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type { Options as TimeSeries } from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// As JSON has it: an enumeration's member is its value.
type Json<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends Array<infer E>
      ? Json<E>[]
      : T extends object
        ? { [K in keyof T]: Json<T[K]> }
        : T;

// What the Prometheus data source takes; the schema leaves it to the source.
interface Query extends DataQuery {
  expr: string;
  legendFormat?: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  range?: boolean;
  editorMode?: 'code' | 'builder';
}

type Kind<K extends string, O, F = Record<string, unknown>> = Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: K;
  options: O;
  fieldConfig: FieldConfigSource<F>;
  targets: Query[];
};

type AnyPanel =
  | RowPanel
  | Kind<'timeseries', TimeSeries, GraphFieldConfig>
  | Kind<'stat', Stat>
  | Kind<'table', Partial<Table>>
  | Kind<'heatmap', Heatmap>
  | Kind<'bargauge', BarGauge>
  | Kind<'state-timeline', StateTimeline>;

// How its Prometheus source writes what an annotation found: the schema leaves this to the source, too.
interface Annotation extends AnnotationQuery<Query> {
  titleFormat: string;
  textFormat: string;
  tagKeys: string;
}

export type File = Json<
  Omit<Dashboard, 'panels' | 'annotations'> & { panels: AnyPanel[]; annotations: { list: Annotation[] } }
>;
