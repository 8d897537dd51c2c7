//! Pages of real engines, shortened, and what is read from them.

use super::*;

const VLLM: &str = r#"# HELP process_start_time_seconds Start time of the process since unix epoch in seconds.
# TYPE process_start_time_seconds gauge
process_start_time_seconds 1.76e+09
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="tiny"} 3.0
vllm:num_requests_running{engine="1",model_name="tiny"} 4.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="tiny",reason="capacity"} 5.0
vllm:kv_cache_usage_perc{engine="0",model_name="tiny"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="tiny"} 0.75
vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",engine="0",num_gpu_blocks="100"} 1.0
vllm:cache_config_info{block_size="16",cache_dtype="auto",enable_prefix_caching="True",engine="1",num_gpu_blocks="100"} 1.0
vllm:prompt_tokens_total{engine="0",model_name="tiny"} 1200.0
vllm:prompt_tokens_created{engine="0",model_name="tiny"} 1.7e+09
vllm:request_success_total{engine="0",finished_reason="stop",model_name="tiny"} 7.0
vllm:request_success_total{engine="0",finished_reason="length",model_name="tiny"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="tiny"} 0.0
"#;

const SGLANG: &str = r#"# HELP sglang:num_running_reqs The number of running requests.
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",priority="",tp_rank="0"} 5.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",priority="1",tp_rank="0"} 2.0
sglang:num_running_reqs{engine_type="unified",model_name="m",pp_rank="0",priority="",tp_rank="1"} 5.0
sglang:num_queue_reqs{dp_rank="0",model_name="m",tp_rank="0"} 1.0
sglang:num_queue_reqs{dp_rank="3",model_name="m",tp_rank="0"} 1.0
sglang:num_used_tokens{model_name="m"} 123859.0
sglang:token_usage{model_name="m"} 0.28
sglang:prompt_tokens_total{model_name="m"} 8.128902e+06
sglang:cache_hit_rate{model_name="m"} 0.007
"#;

const LLAMA_CPP: &str = "# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed.
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 1.23457e+06
llamacpp:tokens_predicted_total 25
llamacpp:n_decode_total 12
llamacpp:requests_processing 1
llamacpp:requests_deferred 46
llamacpp:kv_cache_usage_ratio 0.5
llamacpp:kv_cache_tokens 2048
";

fn load(running: u32, waiting: u32, tokens: u64, kv_used: f32) -> EngineLoad {
    EngineLoad {
        running: Some(running),
        waiting: Some(waiting),
        tokens: Some(tokens),
        kv_used: Some(kv_used),
    }
}

fn counter(page: &Page, name: &str) -> Option<f64> {
    page.marks.counters[COUNTERS.iter().position(|known| *known == name).expect(name)]
}

#[test]
fn vllm_is_summed_over_its_engines() {
    let page = read(VLLM.as_bytes());
    assert_eq!(page.load, load(7, 0, 1600, 0.5));
    assert_eq!(page.marks.started_s, Some(1.76e9));
    assert_eq!(counter(&page, "vllm:prompt_tokens_total"), Some(1200.0));
    assert_eq!(counter(&page, "vllm:request_success_total"), Some(9.0));
    assert_eq!(counter(&page, "vllm:generation_tokens_total"), None);
}

#[test]
fn vllm_had_another_name_for_its_cache() {
    let page = read(b"vllm:gpu_cache_usage_perc{model_name=\"m\"} 0.5\nvllm:num_requests_running 1\n");
    assert_eq!(page.load, EngineLoad { kv_used: Some(0.5), running: Some(1), ..EngineLoad::default() });
}

#[test]
fn sglang_counts_what_ranks_share_once() {
    let page = read(SGLANG.as_bytes());
    assert_eq!(page.load, load(5, 2, 123_859, 0.28));
    assert_eq!(counter(&page, "sglang:prompt_tokens_total"), Some(8_128_902.0));
    assert_eq!(page.marks.started_s, None);
}

#[test]
fn llama_cpp_needs_no_labels() {
    let page = read(LLAMA_CPP.as_bytes());
    assert_eq!(page.load, load(1, 46, 2048, 0.5));
    assert_eq!(counter(&page, "llamacpp:n_decode_total"), Some(12.0));
}

#[test]
fn however_a_page_is_cut_it_says_the_same() {
    for text in [VLLM, SGLANG, LLAMA_CPP] {
        let whole = read(text.as_bytes());
        for cut in 0..=text.len() {
            let mut reader = PageReader::default();
            reader.push(&text.as_bytes()[..cut]);
            reader.push(&text.as_bytes()[cut..]);
            assert_eq!(reader.finish(), whole, "cut at {cut}");
        }
        let mut reader = PageReader::default();
        text.as_bytes().chunks(1).for_each(|byte| reader.push(byte));
        assert_eq!(reader.finish(), whole, "byte by byte");
    }
}

#[test]
fn every_beginning_of_a_page_is_read_without_harm() {
    for text in [VLLM, SGLANG, LLAMA_CPP] {
        for end in 0..text.len() {
            let _ = read(&text.as_bytes()[..end]);
        }
    }
}

#[test]
fn lines_of_other_shapes_are_skipped() {
    let page = concat!(
        "vllm:num_requests_running{a=\"}\\\"\",b=\"x} 9\",engine=\"0\"} 2 1700000000000\r\n",
        "vllm:num_requests_running\n",
        "vllm:num_requests_running \n",
        "vllm:num_requests_running NaN\n",
        "vllm:num_requests_running +Inf\n",
        "vllm:num_requests_running -1\n",
        "vllm:num_requests_running x\n",
        "vllm:num_requests_running{engine=\"0\" 4\n",
        "vllm:num_requests_running{engine=\"0 4\n",
        "vllm:num_requests_running{ 4\n",
        "vllm:num_requests_runningx 4\n",
        "vllm:cache_config_info{block_size=\"x\",num_gpu_blocks=\"None\"} 1\n",
        "\n{} 4\n",
        "vllm:num_requests_waiting 1e99",
    );
    let load = read(page.as_bytes()).load;
    assert_eq!(load, EngineLoad { running: Some(2), waiting: Some(u32::MAX), ..EngineLoad::default() });
    assert_eq!(read(b"vllm:num_requests_running{m=\"\xff\"} 4\n").load, EngineLoad::default());
}

#[test]
fn a_line_that_is_too_long_is_skipped_and_the_next_is_read() {
    let long = format!("vllm:num_requests_running{{x=\"{}\"}} 4\n", "y".repeat(LINE_BYTES_MAX));
    let mut reader = PageReader::default();
    for piece in long.as_bytes().chunks(1000) {
        reader.push(piece);
        assert!(reader.line.len() <= LINE_BYTES_MAX);
    }
    reader.push(b"vllm:num_requests_running 3\n");
    assert_eq!(reader.finish().load.running, Some(3));
}

#[test]
fn an_empty_page_is_a_page() {
    assert_eq!(read(b""), Page { marks: Marks { has_page: true, ..Marks::default() }, ..Page::default() });
}

/// splitmix64, of a counter.
fn mix(counter: u64) -> u64 {
    let mixed = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[test]
fn damaged_pages_do_no_harm_however_they_are_cut() {
    const DAMAGES: u64 = 20_000;
    const BYTES: &[u8] = b"\"{}\\\n ,=e+-.09\0\xff";
    for seed in 0..DAMAGES {
        let mut page = [VLLM, SGLANG, LLAMA_CPP][(seed % 3) as usize].as_bytes().to_vec();
        let draw = |salt: u64, below: usize| (mix(seed << 8 | salt) % below as u64) as usize;
        for damage in 0..=draw(0, 4) as u64 {
            let at = draw(1 + damage, page.len());
            page[at] = BYTES[draw(101 + damage, BYTES.len())];
        }
        let (first, second) = page.split_at(draw(201, page.len()));
        let mut reader = PageReader::default();
        reader.push(first);
        reader.push(second);
        assert_eq!(reader.finish(), read(&page), "seed {seed}");
    }
}
