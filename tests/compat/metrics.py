from shoestring import LLM, SamplingParams
from shoestring.outputs import Counter, Gauge, Histogram, Vector

llm = LLM(model="mini", disable_log_stats=False)
outputs = llm.generate(
    ["make 24 from 3,8,1", "make 12 from 4,8,6"], SamplingParams(temperature=0, max_tokens=6)
)
gauges, counters, histograms, vectors = {}, {}, {}, {}
for metric in llm.get_metrics():
    if isinstance(metric, Gauge):
        gauges[metric.name] = metric.value
    elif isinstance(metric, Counter):
        counters[metric.name] = metric.value
    elif isinstance(metric, Histogram):
        histograms[metric.name] = metric
        print(metric.name, metric.count, metric.sum, *metric.buckets.items())
    elif isinstance(metric, Vector):
        vectors[metric.name] = metric.values
print(gauges, counters)
